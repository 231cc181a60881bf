import keras
import numpy as np
import pytest
from keras import ops

from llama_keras.layers import Projection
from tests.layers.longhand import numpy, on_tensorflow

tf = pytest.importorskip("tensorflow")


def adapted(kind, dtype="float32", **arguments):
    layer = kind(6, dtype=dtype, **arguments)
    layer.build((None, 8))
    layer.enable_lora(2, lora_alpha=5)
    generator = np.random.default_rng(0)
    for variable in layer.variables:
        variable.assign(generator.normal(size=variable.shape))
    return layer


@on_tensorflow
@pytest.mark.parametrize("arguments", [{}, {"use_bias": False, "activation": "gelu"}], ids=str)
@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-5), ("mixed_bfloat16", 3e-2)])
def test_outputs_and_gradients_are_those_of_keras(dtype, limit, arguments):
    x = tf.constant(np.random.default_rng(1).normal(size=(3, 4, 8)).astype("float32"))
    found = []
    for kind in (Projection, keras.layers.Dense):
        layer = adapted(kind, dtype, **arguments)
        learned = [v.value for v in layer.trainable_variables]
        assert len(learned) == 2 + layer.use_bias
        with tf.GradientTape() as tape:
            tape.watch(x)
            answer = layer(x)
            loss = ops.sum(ops.square(ops.cast(answer, "float32")))
        found.append([answer, *tape.gradient(loss, [x, *learned])])
    for one, other in zip(*found, strict=True):
        one, other = (numpy(ops.cast(value, "float32")) for value in (one, other))
        np.testing.assert_allclose(one, other, rtol=limit, atol=limit * np.abs(other).max())


def test_without_an_update_it_is_dense():
    x = np.random.default_rng(1).normal(size=(3, 8)).astype("float32")
    layers = [kind(6, activation="gelu") for kind in (Projection, keras.layers.Dense)]
    for layer in layers:
        layer.build((None, 8))
        layer.kernel.assign(np.random.default_rng(0).normal(size=(8, 6)))
    ours, theirs = (numpy(layer(x)) for layer in layers)
    np.testing.assert_array_equal(ours, theirs)


@on_tensorflow
@pytest.mark.parametrize(("kind", "expected"), [(Projection, False), (keras.layers.Dense, True)])
def test_the_gradient_of_the_kernel_is_not_computed(kind, expected):
    layer = adapted(kind)
    learned = [v.value for v in layer.trainable_variables]

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            loss = ops.sum(layer(x) ** 2)
        return tape.gradient(loss, learned)

    graph = step.get_concrete_function(tf.TensorSpec((5, 8))).graph
    needed = tf.compat.v1.graph_util.extract_sub_graph(
        graph.as_graph_def(), [tensor.op.name for tensor in graph.outputs]
    )
    products = [graph.get_operation_by_name(n.name) for n in needed.node if n.op == "MatMul"]
    assert products
    assert ((8, 6) in [tuple(product.outputs[0].shape) for product in products]) == expected


def test_saving_merges_as_in_keras(tmp_path):
    inputs = keras.Input((8,))
    layer = adapted(Projection)
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    x = np.random.default_rng(1).normal(size=(3, 8)).astype("float32")
    assert isinstance(again.layers[-1], Projection)
    np.testing.assert_allclose(numpy(again(x)), numpy(model(x)), rtol=1e-4, atol=1e-4)


def test_int8_kernels_take_keras_s_own_way():
    layer = adapted(Projection)
    x = np.random.default_rng(1).normal(size=(3, 8)).astype("float32")
    before = numpy(layer(x))
    layer.quantize("int8")
    assert np.abs(numpy(layer(x)) - before).max() < 0.05 * np.abs(before).max()
