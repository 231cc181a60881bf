"""Tokenizer throughput: our graph and our `encode` beside Hugging Face `tokenizers`, in one run.

    python -m benchmarks.tokenizer [--texts sentences.jsonl] [--preset smollm2-135m-instruct]

Both sides get the same sentences, the same vocabulary and two threads, take turns, and must give
the same ids. Each figure is the median over the rounds. Hugging Face's figure includes taking the
ids out of its records, as ours does. Without `--texts` the sentences are those of Python's manual.
"""

import argparse
import json
import os
import re
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

THREADS = 2


def sentences(path: Path | None) -> list[str]:
    """Gives the "text" fields of a JSONL file, or the sentences of Python's manual."""
    if path is not None:
        return [json.loads(line)["text"] for line in path.read_text("utf-8").splitlines()]
    from pydoc_data.topics import topics

    found = re.split(r"(?<=[.!?:])\s+", "\n".join(topics.values()))
    return [sentence for sentence in found if sentence]


def medians(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Gives the seconds of each run, all of them taking turns so that they share the weather."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if round_:  # The first warms up.
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def hugging_face(spec: Any) -> Any:
    """Gives the Hugging Face tokenizer with the vocabulary, merges and words of `spec`."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    from llama_keras.text.pre_tokenizers import PRE_TOKENIZERS

    vocabulary = {token: index for index, token in enumerate(spec.tokens)}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, list(spec.merges), ignore_merges=spec.ignore_merges)
    )
    # As in the models' own files: ByteLevel has GPT-2's pattern built in.
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    pattern = Regex(PRE_TOKENIZERS[spec.pre_tokenizer].reference)
    tokenizer.pre_tokenizer = {
        "gpt2": lambda: words,
        "smollm": lambda: pre_tokenizers.Sequence([pre_tokenizers.Digits(True), words]),
        "llama3": lambda: pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(pattern, "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        ),
    }[spec.pre_tokenizer]()
    return tokenizer


def measure(
    texts: Sequence[str], *, preset: str, batch_sizes: Sequence[int], rounds: int
) -> list[dict[str, Any]]:
    """Gives one record a batch size: MB/s of each side and the ratios to Hugging Face."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)
    from llama_keras.text import Tokenizer

    ours = Tokenizer.from_preset(preset)
    reference = hugging_face(ours.spec)
    in_graph = tf.function(ours.graph.tokenize, input_signature=[tf.TensorSpec([None], tf.string)])

    def theirs(batch: Sequence[str]) -> list[list[int]]:
        return [found.ids for found in reference.encode_batch(batch, add_special_tokens=False)]

    if ours.encode(texts, add_bos=False) != theirs(texts):
        raise SystemExit("The two tokenizers give different ids: nothing to compare.")
    rows = []
    for size in batch_sizes:
        size = min(size, len(texts))
        batches = [texts[at : at + size] for at in range(0, len(texts), size)][:200]
        tensors = [tf.constant(batch) for batch in batches]
        megabytes = sum(len(text.encode()) for batch in batches for text in batch) / 1e6
        seconds = medians(
            {
                "graph": lambda tensors=tensors: [in_graph(batch) for batch in tensors],
                "encode": lambda batches=batches: [ours.encode(batch) for batch in batches],
                "hugging_face": lambda batches=batches: [theirs(batch) for batch in batches],
            },
            rounds,
        )
        rows.append(
            {
                "batch_size": size,
                "megabytes": round(megabytes, 3),
                "megabytes_per_second": {k: round(megabytes / v, 2) for k, v in seconds.items()},
                "ratio_graph": round(seconds["hugging_face"] / seconds["graph"], 2),
                "ratio_encode": round(seconds["hugging_face"] / seconds["encode"], 2),
            }
        )
    return rows


def main() -> None:
    """Measures and prints one JSON line a batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=Path, help='JSONL with a "text" field')
    parser.add_argument("--preset", default="smollm2-135m-instruct")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 32, 512, 8192])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    # Before Rust's thread pool starts.
    os.environ["RAYON_NUM_THREADS"] = str(THREADS)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    rows = measure(
        sentences(options.texts),
        preset=options.preset,
        batch_sizes=options.batch_sizes,
        rounds=options.rounds,
    )
    for row in rows:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
