import contextlib
from typing import Any

import keras
import numpy as np
import pytest

from llama_keras.errors import InputError
from llama_keras.layers import (
    AttentionBias,
    DotProduct,
    RotaryEmbedding,
    SwiGLU,
    TransformerBlock,
)
from tests.layers import longhand
from tests.layers.longhand import numpy

SIZES: dict[str, Any] = {"num_query_heads": 4, "num_key_value_heads": 2, "intermediate_dim": 20}


def build(**arguments) -> Any:
    layer = TransformerBlock(**{**SIZES, **arguments})
    layer.build((None, None, 16))
    generator = np.random.default_rng(5)
    for variable in layer.trainable_variables:
        variable.assign(generator.normal(size=variable.shape) * 0.3)
    return layer


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"attention_bias": True, "mlp_bias": True},
        {"head_dim": 6, "layer_norm_epsilon": 0.1},
        {"attention_kernel": "gaussian"},
        {"feed_forward": "mlp", "mlp_activation": "gelu"},
        {"feed_forward": "mlp", "intermediate_dim": None, "mlp_bias": False},
    ],
    ids=str,
)
def test_equals_longhand(arguments):
    layer = build(**arguments)
    x = np.random.default_rng(6).normal(size=(1, 5, 16)).astype("float32")
    cos, sin = RotaryEmbedding(layer.attention.head_dim)(np.arange(5)[None])
    got = layer(x, bias=AttentionBias("causal")(np.zeros((1, 5), "int32")), cos=cos, sin=sin)
    epsilon = arguments.get("layer_norm_epsilon", 1e-5)
    expected = longhand.block(layer, x[0], epsilon=epsilon, causal=True, wavelength=10000.0)
    np.testing.assert_allclose(numpy(got[0]), expected, rtol=1e-4, atol=1e-4)


def test_weights_are_those_of_the_flags():
    shapes = {v.path.split("/", 1)[-1]: v.shape for v in build().trainable_variables}
    assert len(shapes) == 9
    both = build(attention_bias=True, mlp_bias=True).trainable_variables
    biases = sorted(v.shape[0] for v in both if v.name == "bias")
    assert biases == [8, 8, 16, 16, 16, 20, 20]


def test_weights_of_an_mlp():
    block = build(feed_forward="mlp", intermediate_dim=None)
    shapes = [tuple(v.shape) for v in block.feed_forward.trainable_variables]
    assert shapes == [(16, 64), (64,), (64, 16), (16,)]


def test_each_network_keeps_to_its_own_settings():
    with pytest.raises(
        InputError, match=r"'glu' is not known; expected one of \['swiglu', 'mlp'\]"
    ):
        build(feed_forward="glu")
    with pytest.raises(InputError, match="'swiglu' needs intermediate_dim"):
        build(intermediate_dim=None)


def test_blocks_saved_before_there_were_kernels_are_those_of_llama():
    config = build().get_config()
    for name in ("attention_kernel", "feed_forward", "mlp_activation"):
        del config[name]
    again = TransformerBlock.from_config(config)
    assert isinstance(again.feed_forward, SwiGLU)
    assert isinstance(again.attention.attention_kernel, DotProduct)


def test_dropout_acts_in_training_only():
    layer = build(dropout=0.5)
    x = np.ones((1, 4, 16), "float32")
    quiet = numpy(layer(x))
    np.testing.assert_array_equal(quiet, numpy(layer(x, training=False)))
    assert np.abs(numpy(layer(x, training=True)) - quiet).max() > 1e-3


def test_rematerialized_blocks_learn_the_same():
    inputs = keras.Input((None, 16))
    x = np.random.default_rng(0).normal(size=(2, 5, 16)).astype("float32")
    listed = keras.RematScope(mode="list_of_layers", layer_names=["block"])
    learned = []
    for scope in (contextlib.nullcontext(), listed):
        with scope:
            layer = build(name="block")
        bias, turns = AttentionBias()(inputs[..., 0]), RotaryEmbedding(4)(inputs[..., 0])
        model = keras.Model(inputs, layer(inputs, bias=bias, cos=turns[0], sin=turns[1]))
        model.compile(keras.optimizers.SGD(0.1), "mse")
        model.train_on_batch(x, x * 0.5)
        learned.append([numpy(weight) for weight in layer.weights])
    for plain, again in zip(*learned, strict=True):
        np.testing.assert_allclose(again, plain, rtol=1e-5, atol=1e-6)
