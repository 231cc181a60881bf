from typing import Any

import numpy as np
import pytest

from llama_keras.layers import AttentionBias, RotaryEmbedding, TransformerBlock
from tests.layers import longhand
from tests.layers.longhand import numpy

SIZES: dict[str, Any] = {"num_query_heads": 4, "num_key_value_heads": 2, "intermediate_dim": 20}


def build(**arguments) -> Any:
    layer = TransformerBlock(**SIZES, **arguments)
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


def test_dropout_acts_in_training_only():
    layer = build(dropout=0.5)
    x = np.ones((1, 4, 16), "float32")
    quiet = numpy(layer(x))
    np.testing.assert_array_equal(quiet, numpy(layer(x, training=False)))
    assert np.abs(numpy(layer(x, training=True)) - quiet).max() > 1e-3
