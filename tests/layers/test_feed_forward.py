import keras
import numpy as np
import pytest
from keras import ops

from llama_keras.errors import InputError
from llama_keras.layers import MLP, SwiGLU
from tests.layers import longhand
from tests.layers.longhand import numpy, on_tensorflow

tf = pytest.importorskip("tensorflow")


@pytest.mark.parametrize("use_bias", [False, True])
def test_equals_longhand(use_bias):
    layer = SwiGLU(intermediate_dim=12, use_bias=use_bias)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(2, 3, 8)).astype("float32")
    layer.build(x.shape)
    for variable in layer.variables:
        variable.assign(generator.normal(size=variable.shape))
    assert len(layer.variables) == (6 if use_bias else 3)
    got = numpy(layer(x))
    np.testing.assert_allclose(got, longhand.swiglu(layer, x), rtol=1e-4, atol=1e-4)


@on_tensorflow
@pytest.mark.parametrize(
    ("dtype", "limit"), [("float64", 1e-14), ("float32", 1e-6), ("bfloat16", 0.05)]
)
def test_the_gradient_is_that_of_the_plain_operations(dtype, limit):
    keras.utils.set_random_seed(0)
    layer = SwiGLU(intermediate_dim=12, dtype=dtype)
    x = keras.random.normal((2, 3, 8), dtype=dtype) * 3
    layer.build(x.shape)
    variables = [v.value for v in layer.trainable_variables]
    wide = keras.backend.result_type(dtype, "float32")
    found = []
    for training in (True, False):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = ops.sum(ops.square(layer(x, training=training)))
        found.append(tape.gradient(loss, [x, *variables]))
    for one, other in zip(*found, strict=True):
        one, other = (ops.convert_to_numpy(ops.cast(value, wide)) for value in (one, other))
        np.testing.assert_allclose(one, other, rtol=limit, atol=limit * np.abs(other).max())


@pytest.mark.parametrize(
    ("arguments", "shapes"),
    [
        ({}, {(8, 32), (32,), (32, 8), (8,)}),
        ({"use_bias": False, "activation": "gelu"}, {(8, 32), (32, 8)}),
        ({"intermediate_dim": 12, "activation": "silu"}, {(8, 12), (12,), (12, 8), (8,)}),
    ],
    ids=str,
)
def test_mlp_equals_longhand(arguments, shapes):
    layer = MLP(**arguments)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(2, 3, 8)).astype("float32")
    layer.build(x.shape)
    for variable in layer.variables:
        variable.assign(generator.normal(size=variable.shape))
    assert {tuple(variable.shape) for variable in layer.variables} == shapes
    np.testing.assert_allclose(numpy(layer(x)), longhand.mlp(layer, x), rtol=1e-4, atol=1e-4)


def test_unknown_activation_is_refused():
    with pytest.raises(InputError, match="no activation 'swish2'; try 'relu'"):
        MLP(activation="swish2")


@pytest.mark.parametrize("epsilon", [1e-5, 1e-2])
def test_the_norm_that_blocks_use_equals_longhand(epsilon):
    x = np.random.default_rng(0).normal(size=(2, 3, 8)).astype("float32") * 0.1
    norm = keras.layers.RMSNormalization(epsilon=epsilon)
    norm.build(x.shape)
    norm.scale.assign(np.linspace(0.5, 2.0, 8))
    expected = longhand.rms_norm(x, np.linspace(0.5, 2.0, 8), epsilon)
    np.testing.assert_allclose(numpy(norm(x)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_norm_that_blocks_use_squares_in_float32(dtype):
    x = ops.full((1, 1, 8), 300.0, dtype=dtype)  # 300² is beyond float16
    y = keras.layers.RMSNormalization(dtype=dtype)(x)
    np.testing.assert_allclose(numpy(y), 1.0, rtol=1e-2)
