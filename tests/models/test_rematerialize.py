"""`rematerialize=True`: the same gradients, of which less is kept in memory."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from llama_keras.errors import InputError
from llama_keras.models import LlamaBackbone
from llama_keras.tasks import CausalLM, TextClassifier

SIZES: dict[str, Any] = {
    "vocabulary_size": 31,
    "num_layers": 4,
    "num_query_heads": 2,
    "num_key_value_heads": 1,
    "hidden_dim": 16,
    "intermediate_dim": 24,
}
ROWS, WIDTH = 2, 12


def gradients_and_kept(rematerialize: bool, **more):
    """Gives a step's gradients, and the bytes of the forward pass that the backward pass reads."""
    keras.utils.set_random_seed(0)
    backbone = LlamaBackbone(**SIZES, rematerialize=rematerialize)
    # The head is not asked for anything.
    weights = [v.value for v in backbone.trainable_variables if "reverse" not in v.path]
    ids = np.random.default_rng(0).integers(1, 31, (ROWS, WIDTH)).astype("int32")
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids), **more}
    kept: dict[str, int] = {}

    @tf.function
    def step(inputs):
        graph = tf.compat.v1.get_default_graph()
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(backbone(inputs, training=True) ** 3)
        forward = {op.name for op in graph.get_operations()}
        gradients = tape.gradient(loss, weights)
        for op in graph.get_operations():
            if op.name in forward:
                continue
            for tensor in op.inputs:
                made_by = tensor.op
                is_variable = made_by.type in ("ReadVariableOp", "Placeholder", "Const")
                if made_by.name in forward and not is_variable and tensor.dtype.is_floating:
                    kept[tensor.name] = 4 * (tensor.shape.num_elements() or 0)
        return [tf.convert_to_tensor(gradient) for gradient in gradients]

    return [np.array(g) for g in step(inputs)], sum(kept.values())


def assert_close(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("packed", [False, True])
def test_the_same_gradients_of_less_memory(packed):
    segments = np.repeat([[1] * 5 + [2] * 7], ROWS, axis=0).astype("int32")
    more = {"segment_ids": segments} if packed else {}
    plain, all_kept = gradients_and_kept(False, **more)
    again, kept = gradients_and_kept(True, **more)
    for one, other in zip(again, plain, strict=True):
        # oneDNN fuses the swish of the kept pass alone: without it (TF_ENABLE_ONEDNN_OPTS=0) the
        # two are equal, with it they are 2.2e-6 of the largest apart.
        limit = 1e-5 * max(np.abs(other).max(), 1.0)
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=limit)
    hidden = 4 * ROWS * WIDTH * SIZES["hidden_dim"]
    # What enters each block, and what is outside of the blocks.
    assert SIZES["num_layers"] * hidden <= kept < all_kept / 5


def fitted(rematerialize: bool, strategy: str):
    keras.utils.set_random_seed(0)
    model = CausalLM.from_preset(
        "llama-tiny",
        strategy=strategy,
        max_sequence_length=32,
        backbone_arguments={"num_layers": 2, "rematerialize": rematerialize},
    )
    model.strategy.prepare(model)
    model.compile(keras.optimizers.SGD(0.5, global_clipnorm=1.0), gradient_accumulation_steps=2)
    texts = [f"{'la ' * (i % 4)}{i}" for i in range(7)]
    model.fit(texts, packing=True, batch_size=2, epochs=2, verbose=0)
    return model


@pytest.mark.parametrize("strategy", ["full", "lora"])
def test_fit_learns_the_same_in_parts_and_packed(strategy):
    plain, again = (fitted(flag, strategy) for flag in (False, True))
    assert_close(again.get_weights(), plain.get_weights())


def test_a_saved_task_rematerializes_nothing(tmp_path):
    arguments = {"num_layers": 1, "rematerialize": True}
    model = TextClassifier.from_preset(
        "llama-tiny", labels=["a", "b"], backbone_arguments=arguments
    )
    model.save(tmp_path / "model.keras")
    loaded = TextClassifier.load(tmp_path / "model.keras")
    assert "rematerialize" not in loaded.backbone.get_config()
    assert loaded.predict(["x"], verbose=0) == model.predict(["x"], verbose=0)


def test_dropout_is_refused():
    with pytest.raises(InputError, match=r"rematerialize=True needs dropout=0; this model has 0.1"):
        LlamaBackbone(**SIZES, rematerialize=True, dropout=0.1)
