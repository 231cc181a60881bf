"""Encoder throughput: our backbone beside KerasHub's and Hugging Face's on torch, in one run.

    python -m benchmarks.encode [--rows 8] [--tokens 128] [--rounds 9]

All have SmolLM2-135M's shape with random weights and two threads. Each library runs in a process
of its own, which waits on its standard input while the others are measured: the rounds take turns,
each figure is the median over the rounds. LLAMA_KERAS_PEER_PYTHON names the interpreter that has
torch and transformers (this one by default); a library that is missing there is left out.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

THREADS = 2
DTYPES = ("float32", "bfloat16")
SHAPE: dict[str, Any] = {
    "vocabulary_size": 49152,
    "num_layers": 30,
    "num_query_heads": 9,
    "num_key_value_heads": 3,
    "hidden_dim": 576,
    "intermediate_dim": 1536,
    "tie_word_embeddings": True,
}


def _keras(build: Callable[[str], Any], rows: int, tokens: int) -> dict[str, Callable[[], Any]]:
    import numpy as np
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)
    generator = np.random.default_rng(0)
    ids = generator.integers(1, SHAPE["vocabulary_size"], (rows, tokens), dtype="int32")
    mask = np.ones_like(ids)
    signature = [tf.TensorSpec([None, None], tf.int32)] * 2

    def runner(dtype):
        model = build(dtype)
        encode = tf.function(
            lambda ids, mask: model({"token_ids": ids, "padding_mask": mask}),
            input_signature=signature,
        )
        return lambda: encode(ids, mask)

    return {dtype: runner(dtype) for dtype in DTYPES}


def ours(rows: int, tokens: int) -> dict[str, Callable[[], Any]]:
    """Gives what encodes one batch, by dtype."""
    from llama_keras.models import LlamaBackbone

    return _keras(lambda dtype: LlamaBackbone(**SHAPE, dtype=dtype), rows, tokens)


def keras_hub(rows: int, tokens: int) -> dict[str, Callable[[], Any]]:
    """Gives the same of KerasHub's `LlamaBackbone`."""
    from keras_hub.models import LlamaBackbone

    return _keras(lambda dtype: LlamaBackbone(**SHAPE, dtype=dtype), rows, tokens)


def hugging_face(rows: int, tokens: int) -> dict[str, Callable[[], Any]]:
    """Gives the same of Hugging Face's `LlamaModel`."""
    import torch
    from transformers import LlamaConfig, LlamaModel

    torch.set_num_threads(THREADS)
    config = LlamaConfig(
        vocab_size=SHAPE["vocabulary_size"],
        num_hidden_layers=SHAPE["num_layers"],
        num_attention_heads=SHAPE["num_query_heads"],
        num_key_value_heads=SHAPE["num_key_value_heads"],
        hidden_size=SHAPE["hidden_dim"],
        intermediate_size=SHAPE["intermediate_dim"],
    )
    ids = torch.randint(1, SHAPE["vocabulary_size"], (rows, tokens))
    mask = torch.ones_like(ids)

    def runner(dtype):
        model = LlamaModel(config).to(getattr(torch, dtype)).eval()

        def run():
            with torch.inference_mode():
                model(input_ids=ids, attention_mask=mask, use_cache=False)

        return run

    return {dtype: runner(dtype) for dtype in DTYPES}


LIBRARIES = {"ours": ours, "keras_hub": keras_hub, "hugging_face": hugging_face}


def work(library: str, rows: int, tokens: int) -> None:
    """Answers each dtype read from standard input with the seconds of one batch."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Libraries that print must not disturb the answers.
    runs = LIBRARIES[library](rows, tokens)
    for run in runs.values():
        run()
        run()
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        runs[line.strip()]()
        print(time.perf_counter() - start, file=answers, flush=True)


def start(library: str, rows: int, tokens: int) -> subprocess.Popen | None:
    """Gives the waiting process of a library, or None when the library is not there."""
    python = sys.executable
    if library == "hugging_face":
        python = os.environ.get("LLAMA_KERAS_PEER_PYTHON", python)
    root = Path(__file__).resolve().parent.parent
    size = ["--rows", str(rows), "--tokens", str(tokens)]
    process = subprocess.Popen(
        [python, __file__, "--worker", library, *size],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": str(THREADS)},
    )
    assert process.stdin and process.stdout and process.stderr
    if process.stdout.readline().strip() == "ready":
        return process
    reason = process.stderr.read().strip().splitlines()[-1:]
    print(f"{library} is left out: {' '.join(reason)}", file=sys.stderr)
    return None


def ask(process: subprocess.Popen, dtype: str) -> float:
    """Gives the seconds that one batch took just now."""
    assert process.stdin and process.stdout
    print(dtype, file=process.stdin, flush=True)
    return float(process.stdout.readline())


def measure(*, rows: int, tokens: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Yields one record for each library and dtype, then the ratio of ours to the best peer."""
    started = {library: start(library, rows, tokens) for library in LIBRARIES}
    workers = {library: process for library, process in started.items() if process}
    try:
        seconds = {(library, dtype): [] for library in workers for dtype in DTYPES}
        for _ in range(rounds):
            for (library, dtype), taken in seconds.items():
                taken.append(ask(workers[library], dtype))
    finally:
        for process in workers.values():
            process.kill()
    speeds = {name: rows * tokens / statistics.median(taken) for name, taken in seconds.items()}
    for (library, dtype), speed in speeds.items():
        yield {"library": library, "dtype": dtype, "tokens_per_second": round(speed)}
    best = {library: max(speeds[library, dtype] for dtype in DTYPES) for library in workers}
    peers = [speed for library, speed in best.items() if library != "ours"]
    ratio = round(best["ours"] / max(peers), 2) if peers else None
    yield {"rows": rows, "tokens": tokens, "rounds": rounds, "ratio_to_best_peer": ratio}


def main() -> None:
    """Measures and prints one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--worker", choices=LIBRARIES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if options.worker:
        work(options.worker, options.rows, options.tokens)
        return
    for row in measure(rows=options.rows, tokens=options.tokens, rounds=options.rounds):
        print(json.dumps(row))


if __name__ == "__main__":
    main()
