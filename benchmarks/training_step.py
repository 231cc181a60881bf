"""Speed and peak memory of a training step on this machine, beside what `plan` expects of it.

    .venv/bin/python -m benchmarks.training_step --strategy full
    .venv/bin/python -m benchmarks.training_step --strategy lora

Trains the shape of SmolLM2-135M (random weights, which cost the same) as a causal language model
with TensorFlow: chunked logits, AdamW clipped by the global norm. Run each strategy in a process of
its own: the peak is the process's.
"""

import argparse
import json
import os
import resource
import statistics
import time

import keras
import numpy as np
import tensorflow as tf

from llama_keras.models import LlamaBackbone
from llama_keras.objectives.cross_entropy import chunked_cross_entropy, head_kernel
from llama_keras.planning.plan import plan
from llama_keras.training.fine_tuning import get_strategy
from llama_keras.training.optimizers import default_adamw

CORES = os.cpu_count() or 1


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def make_step(backbone):
    optimizer = default_adamw(1e-4, None)
    optimizer.build(backbone.trainable_variables)

    @tf.function
    def step(ids):
        with tf.GradientTape() as tape:
            hidden = backbone({"token_ids": ids, "padding_mask": tf.ones_like(ids)}, training=True)
            kernel = head_kernel(backbone.token_embedding)
            targets = tf.roll(ids, -1, axis=1)
            loss = chunked_cross_entropy(hidden, kernel, targets=targets)
        variables = backbone.trainable_variables
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    return step


def measure(arguments) -> dict:
    before = peak_bytes()
    backbone = LlamaBackbone.from_preset(
        arguments.preset,
        load_weights=False,
        dtype=arguments.dtype,
        rematerialize=arguments.rematerialize,
    )

    class Task:
        pass

    task = Task()
    task.backbone = backbone
    get_strategy(arguments.strategy).prepare(task)
    step = make_step(backbone)
    shape = (arguments.batch_size, arguments.sequence_length)
    rng = np.random.default_rng(0)
    ids = tf.constant(rng.integers(0, backbone.config.vocabulary_size, shape), tf.int32)
    seconds, of_cores = [], []
    for _ in range(arguments.steps + 1):
        start, used = time.perf_counter(), time.process_time()
        step(ids).numpy()
        seconds.append(time.perf_counter() - start)
        of_cores.append((time.process_time() - used) / CORES)
    tokens = arguments.batch_size * arguments.sequence_length
    wall, cores = (statistics.median(found[1:]) for found in (seconds, of_cores))
    return {
        "learned": sum(int(np.prod(v.shape)) for v in backbone.trainable_variables),
        "seconds_a_step": wall,
        "tokens_per_second": tokens / wall,
        # All cores' time, as if nobody else had used them.
        "core_seconds_a_step": cores,
        "tokens_per_core_second": tokens / cores,
        "load": os.getloadavg()[0],
        "peak_bytes": peak_bytes(),
        "peak_bytes_before_the_model": before,
    }


def expected(arguments) -> dict:
    rank = get_strategy("lora").rank if arguments.strategy == "lora" else None
    found = plan(
        arguments.preset,
        device="cpu",
        batch_size=arguments.batch_size,
        sequence_length=arguments.sequence_length,
        dtype=arguments.dtype,
        lora_rank=rank,
        remat=arguments.rematerialize,
    )
    return {
        "seconds_a_step": found.time.step,
        "tokens_per_second": found.tokens_per_second,
        "peak_bytes": found.memory.peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="smollm2-135m-instruct")
    parser.add_argument("--strategy", default="full", choices=["full", "lora"])
    parser.add_argument("--dtype", default="mixed_bfloat16")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--sequence-length", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rematerialize", action="store_true")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    found = {"measured": measure(arguments), "expected": expected(arguments)}
    print(json.dumps({**vars(arguments), **found}, indent=2))


if __name__ == "__main__":
    main()
