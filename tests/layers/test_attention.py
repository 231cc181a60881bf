from typing import Any

import numpy as np
import pytest
from keras import ops

from llama_keras.errors import InputError
from llama_keras.layers import (
    AttentionBias,
    DotProduct,
    GaussianKernel,
    LlamaAttention,
    RotaryEmbedding,
)
from llama_keras.layers.attention import write_cache
from llama_keras.layers.masking import additive
from tests.layers import longhand
from tests.layers.longhand import numpy

WIDTH = 24
GAUSSIAN = {"name": "gaussian", "temperature": 0.7}
KERNELS = {
    "dot product": "dot_product",
    "gaussian": GAUSSIAN,
    "learned": {**GAUSSIAN, "learned_temperature": True},
    "unnormalized": {**GAUSSIAN, "normalize": False},
}


def build(**arguments) -> Any:
    layer = LlamaAttention(**{"num_query_heads": 4, "num_key_value_heads": 2, **arguments})
    layer.build((None, None, WIDTH))
    generator = np.random.default_rng(3)
    for variable in layer.variables:
        variable.assign(generator.normal(size=variable.shape) * 0.3)
    return layer


def text(batch=2, length=7) -> Any:
    return np.random.default_rng(4).normal(size=(batch, length, WIDTH)).astype("float32")


HEADS = {"multi-head": (4, 4), "grouped": (4, 2), "three groups": (6, 2), "multi-query": (4, 1)}


@pytest.mark.parametrize("rotate", [True, False], ids=["rotary", "no positions"])
@pytest.mark.parametrize("mode", ["causal", "bidirectional"])
@pytest.mark.parametrize(("heads", "kv_heads"), HEADS.values(), ids=HEADS)
def test_equals_longhand_with_repeated_heads(heads, kv_heads, mode, rotate):
    layer = build(num_query_heads=heads, num_key_value_heads=kv_heads)
    x = text()
    options = {}
    if rotate:
        cos, sin = RotaryEmbedding(layer.head_dim, max_wavelength=100.0)(np.arange(7)[None])
        options = {"cos": cos, "sin": sin}
    got = layer(x, bias=AttentionBias(mode)(np.zeros((2, 7), "int32")), **options)
    wavelength = 100.0 if rotate else None
    for row in range(2):
        expected = longhand.attention(layer, x[row], causal=mode == "causal", wavelength=wavelength)
        np.testing.assert_allclose(numpy(got[row]), expected, atol=2e-5)


@pytest.mark.parametrize(
    "arguments", [{"use_bias": True}, {"head_dim": 10}, {"head_dim": 10, "use_bias": True}]
)
def test_biases_and_head_size_equal_longhand(arguments):
    layer = build(**arguments)
    assert layer.head_dim == arguments.get("head_dim", 6)
    assert layer.query_dense.kernel.shape == (WIDTH, 4 * layer.head_dim)
    assert layer.key_dense.kernel.shape == (WIDTH, 2 * layer.head_dim)
    assert layer.output_dense.kernel.shape == (4 * layer.head_dim, WIDTH)
    x = text(batch=1)
    expected = longhand.attention(layer, x[0], causal=False)
    np.testing.assert_allclose(numpy(layer(x)[0]), expected, atol=2e-5)


def test_without_a_bias_all_is_seen():
    layer, x = build(), text()
    nothing_hidden = np.zeros((1, 1, 7, 7), "float32")
    np.testing.assert_allclose(
        numpy(layer(x)),
        numpy(layer(x, bias=nothing_hidden)),
        atol=1e-6,
    )


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("mode", ["causal", "bidirectional", "prefix"])
def test_each_kernel_equals_longhand(mode, kernel):
    layer, x = build(attention_kernel=kernel), text()
    cos, sin = RotaryEmbedding(layer.head_dim, max_wavelength=100.0)(np.arange(7)[None])
    prefix = np.array([[1, 1, 1, 0, 0, 0, 0]] * 2) if mode == "prefix" else None
    bias = AttentionBias(mode)(np.zeros((2, 7), "int32"), prefix_mask=prefix)
    options: Any = {"causal": mode != "bidirectional", "wavelength": 100.0}
    options["prefix"] = 3 if mode == "prefix" else 0
    got = numpy(layer(x, bias=bias, cos=cos, sin=sin))
    weights = numpy(layer.attention_weights(x, bias=bias, cos=cos, sin=sin))
    for row in range(2):
        np.testing.assert_allclose(
            got[row], longhand.attention(layer, x[row], **options), atol=2e-5
        )
        np.testing.assert_allclose(
            weights[row], longhand.weights(layer, x[row], **options), atol=1e-5
        )


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("pieces", [(5, 1, 1), (3, 4), (1,) * 7, (7,)], ids=str)
def test_cache_in_pieces_equals_all_at_once(pieces, kernel):
    layer, x = build(attention_kernel=kernel), text()
    rotary = RotaryEmbedding(layer.head_dim)
    cos, sin = rotary(np.arange(7)[None])
    whole = layer(x, bias=AttentionBias("causal")(np.zeros((2, 7), "int32")), cos=cos, sin=sin)
    slots = 9  # two stay empty
    cache = (ops.zeros((2, 2, slots, 6)), ops.zeros((2, 2, slots, 6)))
    done, outputs = 0, []
    for piece in pieces:
        at = np.arange(done, done + piece)
        cos, sin = rotary(ops.convert_to_tensor(at[None]))
        visible = np.arange(slots)[None] <= at[:, None]
        bias = ops.reshape(additive(visible, "float32"), (1, 1, piece, slots))
        output, cache = layer(x[:, at], bias=bias, cos=cos, sin=sin, cache=cache, cache_index=done)
        outputs.append(numpy(output))
        done += piece
    np.testing.assert_allclose(np.concatenate(outputs, axis=1), numpy(whole), atol=1e-5)
    assert not np.any(numpy(cache[0])[:, :, 7:])


@pytest.mark.parametrize(("index", "count"), [(0, 1), (4, 1), (0, 3), (2, 3)])
def test_write_cache_changes_the_named_slots_only(index, count):
    generator = np.random.default_rng(0)
    cache = generator.normal(size=(2, 3, 5, 4)).astype("float32")
    new = generator.normal(size=(2, 3, count, 4)).astype("float32")
    got = write_cache(ops.convert_to_tensor(cache), ops.convert_to_tensor(new), index)
    cache[:, :, index : index + count] = new
    np.testing.assert_array_equal(numpy(got), cache)


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_dropout_acts_in_training_only(kernel):
    layer = build(dropout=0.5, attention_kernel=kernel)
    x = text()
    quiet = numpy(layer(x))
    np.testing.assert_array_equal(quiet, numpy(layer(x, training=False)))
    assert np.abs(numpy(layer(x, training=True)) - quiet).max() > 1e-3


def test_a_kernel_may_be_given_as_an_object():
    x, config = text(), {**GAUSSIAN, "learned_temperature": False, "normalize": True}
    given = build(attention_kernel=GaussianKernel(temperature=0.7))
    assert given.get_config()["attention_kernel"] == config
    again = LlamaAttention.from_config(given.get_config())
    again.build(x.shape)
    again.set_weights(given.get_weights())
    np.testing.assert_array_equal(numpy(again(x)), numpy(given(x)))


def test_layers_may_share_a_learned_temperature():
    kernel = GaussianKernel(learned_temperature=True)
    first, second = (build(attention_kernel=kernel) for _ in range(2))
    assert first.attention_kernel is second.attention_kernel
    shared = [v for v in first.weights if any(v is w for w in second.weights)]
    assert [v.name for v in shared] == ["log_temperature"]


def test_layers_saved_before_there_were_kernels_take_dot_products():
    config = build().get_config()
    assert config.pop("attention_kernel") == {"name": "dot_product"}
    assert isinstance(LlamaAttention.from_config(config).attention_kernel, DotProduct)


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(InputError, match="multiple of num_key_value_heads; received 4 and 3"):
        LlamaAttention(num_query_heads=4, num_key_value_heads=3)
    with pytest.raises(InputError, match="width 24 .*num_query_heads=5; give head_dim"):
        build(num_query_heads=5, num_key_value_heads=5)
