"""What the input pipeline costs beside a training step: its share of a step, stream by stream.

    .venv/bin/python -m benchmarks.input_pipeline

Real sentences (SST-2's), tokenized; batches texts of like length or several texts a row, clean or
masked. First the stream runs alone, then `train_on_batch` takes its batches: the shape of
SmolLM2-135M with random weights, which cost the same, all of them learned by plain SGD, the
cheapest update there is. Seconds are those of the process on all cores, so that neighbours on the
machine change little; the pipeline works beside the step, so a share below 100 % costs no time
where a core is free.
"""

import argparse
import json
import time

import keras

from benchmarks.smollm2 import PRESET
from benchmarks.train import sentences
from llama_keras.data.bucketing import TokenRows
from llama_keras.data.corrupted import objective_stream
from llama_keras.data.shares import WHOLE
from llama_keras.models import LlamaBackbone
from llama_keras.tasks import Pretraining
from llama_keras.text import Tokenizer

WIDTH = 128
# Name → objective, tokens of a packed row (None: a text each), and rows in a batch.
STREAMS = {
    "like lengths, clean": ("causal", None, 32),
    "packed, clean": ("causal", WIDTH, 8),
    "like lengths, masked": ("masked", None, 32),
    "packed, masked": ("masked", WIDTH, 8),
}


def task(objective: str, tokenizer, arguments) -> Pretraining:
    """Gives a task of random weights."""
    backbone = LlamaBackbone.from_preset(
        arguments.preset,
        load_weights=False,
        dtype=arguments.dtype,
        **({"num_layers": arguments.layers} if arguments.layers else {}),
        attention_mask="causal" if objective == "causal" else "bidirectional",
    )
    model = Pretraining(backbone=backbone, tokenizer=tokenizer, objective=objective)
    model.compile(keras.optimizers.SGD(1e-4))
    return model


def measure(name: str, model, rows: TokenRows, arguments) -> dict:
    """Gives core seconds of a batch and of a step, and what a batch holds."""
    _, width, batch_size = STREAMS[name]
    start = time.process_time()
    make, steps, _ = objective_stream(
        rows, noise=model.noise, width=width, batch_size=batch_size, seed=0
    )
    stream = iter(make(WHOLE, 0))
    first = next(stream)
    begun = time.process_time() - start
    tokens = places = 0
    start, wall = time.process_time(), time.perf_counter()
    for _ in range(arguments.batches):
        mask = next(stream)["padding_mask"].numpy()
        tokens, places = tokens + int(mask.sum()), places + mask.size
    alone, wall = time.process_time() - start, time.perf_counter() - wall
    del stream
    batches = [first, *make(WHOLE, 1).take(arguments.steps - 1)]
    learned = sum(int(batch["padding_mask"].numpy().sum()) for batch in batches)
    for _ in range(2):  # the first time traces
        start = time.process_time()
        for batch in batches:
            model.train_on_batch(batch)
    step = time.process_time() - start
    batch_seconds, per_token = alone / arguments.batches, step / learned
    return {
        "stream": name,
        "batches a second": arguments.batches / wall,
        "tokens a second": tokens / wall,
        "padding": 1 - tokens / places,
        "batch ms": 1e3 * batch_seconds,
        # Of batches as long as those that the stream gave.
        "step ms": 1e3 * per_token * tokens / arguments.batches,
        "share": (alone / tokens) / per_token,
        "ms before the first batch": 1e3 * begun,
        "batches an epoch": steps,
    }


def main() -> None:
    """Measures all streams and prints them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default=PRESET)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--layers", type=int, help="fewer blocks, where memory is short")
    parser.add_argument("--sentences", type=int, default=1800)
    parser.add_argument("--batches", type=int, default=400)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    tokenizer = Tokenizer.from_preset(arguments.preset)
    ids = tokenizer.encode(sentences("SST-2", arguments.sentences))
    rows = TokenRows([row[:WIDTH] for row in ids], tokenizer.pad_id)
    model = last = None
    for name, (objective, _, _) in STREAMS.items():
        if objective != last:
            model = None  # one model at a time in memory
            keras.utils.clear_session()
            model, last = task(objective, tokenizer, arguments), objective
        found = measure(name, model, rows, arguments)
        if arguments.json:
            print(json.dumps(found), flush=True)
            continue
        print(
            f"{name:22} {found['batches a second']:6.0f} batches/s "
            f"{found['tokens a second']:9,.0f} tokens/s {100 * found['padding']:5.1f} % padding "
            f"{found['batch ms']:6.2f} of {found['step ms']:7.0f} ms a step: "
            f"{100 * found['share']:.3f} %",
            flush=True,
        )


if __name__ == "__main__":
    main()
