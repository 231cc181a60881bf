"""Decoding: one row, greedy, 64 new tokens; ours beside KerasHub (and llama.cpp), in one run.

    python -m benchmarks.decode [--rounds 5] [--llama-cpp PYTHON]

All have the shape of SmolLM2-135M and two threads, and take turns; compiling is left out, the
prompt is in. The Keras models have the same random weights, for which the time does not depend on
them, and must give the same tokens. llama.cpp runs the real 4-bit checkpoint, in the interpreter
named by `--llama-cpp` or LLAMA_CPP_PYTHON (this one by default), and is left out where
llama-cpp-python or the checkpoint is missing. Prints one JSON object; `ratio` is our best mode
over the best of KerasHub's.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

THREADS, PROMPT, NEW = 2, 16, 64
SHAPE = {
    "vocabulary_size": 49152,
    "num_layers": 30,
    "num_query_heads": 9,
    "num_key_value_heads": 3,
    "hidden_dim": 576,
    "intermediate_dim": 1536,
}
JIT = {"plain": False, "xla": True}
LLAMA_CPP = f"""
import json, sys, time
from llama_cpp import Llama
model = Llama(sys.argv[1], n_ctx=256, n_threads={THREADS}, n_threads_batch={THREADS}, verbose=False)
for line in sys.stdin:
    start, count = time.perf_counter(), 0
    model.reset()
    for token in model.generate(list(range(5, 5 + {PROMPT})), temp=0.0):
        count += 1
        if count == {NEW}:
            break
    print(json.dumps(time.perf_counter() - start), flush=True)
"""


def ours(dtype: str, jit_compile: bool) -> tuple[Any, Callable[[], list[int]]]:
    """Gives our backbone and what decodes with it."""
    from llama_keras.models import LlamaBackbone
    from llama_keras.models.sampling import SamplingSettings
    from llama_keras.tasks.causal_lm import compiled_functions

    backbone = LlamaBackbone(
        **SHAPE, tie_word_embeddings=True, rope_max_wavelength=100000.0, dtype=dtype
    )
    generator = compiled_functions(backbone, jit_generate=jit_compile).generator
    settings = [SamplingSettings(max_new_tokens=NEW)]

    def run() -> list[int]:
        chunks = generator.run([list(range(5, 5 + PROMPT))], settings=settings)
        return [int(t) for chunk in chunks for t in chunk.token_ids[0] if t >= 0]

    return backbone, run


def keras_hub(dtype: str, jit_compile: bool) -> tuple[Any, Callable[[], list[int]]]:
    """Gives KerasHub's backbone and what decodes with it."""
    import numpy as np
    from keras_hub.models import LlamaBackbone, LlamaCausalLM

    # Its Llama loses `tie_word_embeddings`; the work of one step is the same either way.
    backbone = LlamaBackbone(
        **SHAPE, tie_word_embeddings=True, rope_max_wavelength=100000.0, dtype=dtype
    )
    model = LlamaCausalLM(backbone, preprocessor=None)
    model.compile(sampler="greedy", jit_compile=jit_compile)
    token_ids = np.zeros((1, PROMPT + NEW), "int32")
    token_ids[0, :PROMPT] = range(5, 5 + PROMPT)
    inputs = {"token_ids": token_ids, "padding_mask": np.arange(PROMPT + NEW)[None] < PROMPT}

    def run() -> list[int]:
        found = model.generate({**inputs}, stop_token_ids=None)
        return [int(t) for t in np.asarray(found["token_ids"])[0, PROMPT:]]

    return backbone, run


def llama_cpp(python: str) -> Callable[[], float] | None:
    """Gives what decodes in llama.cpp and tells the seconds, if it is there."""
    from llama_keras.weights.presets import resolve

    try:
        path = resolve("smollm2-135m-instruct").path
    except ImportError:
        return None
    process = subprocess.Popen(
        [python, "-c", LLAMA_CPP, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )

    def run() -> float:
        assert process.stdin and process.stdout
        process.stdin.write("go\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    try:
        run()
    except (OSError, ValueError):
        return None
    return run


def measure(*, dtypes: list[str], modes: list[str], rounds: int, python: str) -> dict[str, Any]:
    """Gives tokens per second of each engine and mode, and our ratio to KerasHub."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)
    runs: dict[str, Callable[[], Any]] = {}
    first: dict[str, float] = {}
    for dtype in dtypes:
        for mode in modes:
            for name, make in (("llama-keras", ours), ("keras-hub", keras_hub)):
                key = f"{name} {dtype} {mode}"
                _, runs[key] = make(dtype, JIT[mode])
                start = time.perf_counter()
                runs[key]()  # traces and compiles
                first[key] = round(time.perf_counter() - start, 1)
    peer = llama_cpp(python)
    seconds: dict[str, list[float]] = {key: [] for key in runs}
    if peer is not None:
        seconds["llama.cpp Q4_1"] = []
    for _ in range(rounds):
        for key, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[key].append(time.perf_counter() - start)
        if peer is not None:
            seconds["llama.cpp Q4_1"].append(peer())
    speed = {key: round(NEW / statistics.median(times), 1) for key, times in seconds.items()}
    best = {
        name: max(value for key, value in speed.items() if key.startswith(name))
        for name in ("llama-keras", "keras-hub")
    }
    return {
        "tokens_per_second": speed,
        "first_call_seconds": first,
        "ratio": round(best["llama-keras"] / best["keras-hub"], 2),
    }


def main() -> None:
    """Measures and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtypes", nargs="+", default=["float32"])
    parser.add_argument("--modes", nargs="+", choices=list(JIT), default=list(JIT))
    parser.add_argument(
        "--llama-cpp",
        default=os.environ.get("LLAMA_CPP_PYTHON", sys.executable),
        help="interpreter that has llama-cpp-python",
    )
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    result = measure(
        dtypes=options.dtypes,
        modes=options.modes,
        rounds=options.rounds,
        python=options.llama_cpp,
    )
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
