"""The plan beside what XLA says of the same training steps, compiled under JAX but not run.

All is float32, for the CPU compiler computes half precision in float32; and with the schedule that
saves memory, as compilers for accelerators do.
"""

import importlib.util
import json
import os
import subprocess
import sys

import keras
import pytest

from llama_keras.planning.plan import plan
from llama_keras.planning.shapes import Shape

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed"),
    pytest.mark.skipif(keras.backend.backend() == "jax", reason="this is the inner run"),
]
JAX = {
    "KERAS_BACKEND": "jax",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_enable_concurrency_optimized_scheduler=false",
}
SHAPE = {
    "vocabulary_size": 512,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 64,
    "intermediate_dim": 128,
    "tie_word_embeddings": True,
}
# name -> changes of the shape, settings of the step
FEW = {"plain": ({}, {}), "deep": ({"num_layers": 4}, {})}
MORE = {
    "remat": ({}, {"remat": True}),
    "deep remat": ({"num_layers": 4}, {"remat": True}),
    "large vocabulary": ({"vocabulary_size": 2048}, {}),
    "wide": ({"hidden_dim": 128, "head_dim": 32}, {}),
    "many heads": ({"num_query_heads": 8, "num_key_value_heads": 8, "head_dim": 16}, {}),
    "mlp": ({"feed_forward": "mlp", "intermediate_dim": 256}, {}),
    "chunked": ({"num_layers": 4}, {"chunk": 256}),
    "lora": ({"num_layers": 4}, {"lora_rank": 4}),
    "long": ({}, {"batch": 2, "length": 512}),
}


def compiled(cases, repository):
    """Gives XLA's words on each case by name."""
    asked = [
        {"shape": {**SHAPE, **shape}, "batch": 8, "length": 128, **settings}
        for shape, settings in cases.values()
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.planning.xla_worker"],
        cwd=repository,
        env={**os.environ, **JAX},
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=880,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    return dict(zip(cases, found, strict=True))


def planned(shape, settings):
    settings = {"batch": 8, "length": 128, **settings}
    chunk = settings.pop("chunk", None)
    chunked = {"logits": "chunked", "chunk": chunk} if chunk else {"logits": "whole"}
    return plan(
        Shape.from_config("x", {**SHAPE, **shape}),
        device="cpu",
        dtype="float32",
        batch_size=settings.pop("batch"),
        sequence_length=settings.pop("length"),
        **chunked,
        **settings,
    )


def check(cases, found):
    for name, (shape, settings) in cases.items():
        expected, seen = planned(shape, settings), found[name]
        # XLA counts norms, softmax and the update, too; of a loop over chunks, one turn only.
        flops = expected.flops.computed * expected.settings.step_tokens
        if "chunk" not in settings:
            assert seen["flops"] == pytest.approx(flops * 1.03, rel=0.05), name
        # What is kept from step to step, but for the step counter and the token ids.
        assert seen["arguments"] == pytest.approx(expected.memory.state, abs=20_000), name
        peak = seen["arguments"] + seen["temporary"]
        assert peak == pytest.approx(expected.memory.peak, rel=0.12), name


def test_a_step_is_as_large_as_xla_says(repository):
    found = compiled(FEW, repository)
    check(FEW, found)
    # A layer more is exact: nothing but its weights, moments and activations.
    (two, four), kept = (planned(*FEW[name]) for name in FEW), "temporary"
    of_layers = four.memory.activations - two.memory.activations
    assert found["deep"][kept] - found["plain"][kept] == pytest.approx(of_layers, rel=0.01)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_kind_of_step_is_as_large_as_xla_says(repository):
    check(MORE, compiled(MORE, repository))
