"""Every layer alone in somebody's functional model: what anybody's Keras code expects of it."""

import inspect
import re

import keras
import numpy as np
import pytest

from llama_keras import layers, models
from tests.layers.longhand import load_model, numpy

LINEAR = {"rope_type": "linear", "factor": 2.0}
ATTENTION = {"num_query_heads": 4, "num_key_value_heads": 2}
GAUSSIAN = {"temperature": 0.5, "learned_temperature": True, "normalize": False}


def hidden_model(layer):
    hidden = keras.Input((None, 16))
    return keras.Model(hidden, layer(hidden)), np.random.default_rng(0).normal(size=(2, 5, 16))


def masked_model(layer):
    hidden, mask = keras.Input((None, 16)), keras.Input((None,), dtype="int32")
    data = [np.random.default_rng(0).normal(size=(2, 5, 16)), np.array([[1, 1, 1, 0, 0]] * 2)]
    return keras.Model([hidden, mask], layer(hidden, mask)), data


def token_model(layer):
    ids, mask = (keras.Input((None,), dtype="int32") for _ in range(2))
    data = [np.zeros((2, 5), "int32"), np.array([[0, 1, 1, 1, 0]] * 2)]
    return keras.Model([ids, mask], layer(ids, padding_mask=mask)), data


def position_model(layer):
    positions = keras.Input((None,), dtype="int32")
    return keras.Model(positions, layer(positions)), np.arange(10).reshape(2, 5)


def heads_model(layer):
    query, key, value = (keras.Input((None, heads, 8)) for heads in (4, 2, 2))
    mask = keras.Input((1, None, None), dtype="bool")
    generator = np.random.default_rng(0)
    data = [generator.normal(size=(2, 5, heads, 8)).astype("float32") for heads in (4, 2, 2)]
    output = layer(query=query, key=key, value=value, mask=mask)
    tril = np.tril(np.ones((2, 1, 5, 5), "bool"))
    return keras.Model([query, key, value, mask], output), [*data, tril]


def biased_model(layer):
    """Wires a block as the backbone does: bias and rotary tables come from other layers."""
    hidden, ids = keras.Input((None, 16)), keras.Input((None,), dtype="int32")
    bias = layers.AttentionBias("causal")(ids)
    cos, sin = layers.RotaryEmbedding(4)(layers.TokenPositions()(ids))
    data = [np.random.default_rng(0).normal(size=(2, 5, 16)), np.zeros((2, 5), "int32")]
    return keras.Model([hidden, ids], layer(hidden, bias=bias, cos=cos, sin=sin)), data


# name -> (how to wire it, the layer's class, non-default arguments)
CASES = {
    "AttentionBias": (token_model, layers.AttentionBias, {"mode": "bidirectional"}),
    "DotProduct": (heads_model, layers.DotProduct, {}),
    "GaussianKernel": (heads_model, layers.GaussianKernel, GAUSSIAN),
    "LinearChainCRF": (
        masked_model,
        layers.LinearChainCRF,
        {
            "num_tags": 16,
            "allowed_transitions": [[i <= j for j in range(16)] for i in range(16)],
            "allowed_starts": [i < 8 for i in range(16)],
            "allowed_ends": [i > 4 for i in range(16)],
            "scale": 2.0,
        },
    ),
    "LlamaAttention": (
        hidden_model,
        layers.LlamaAttention,
        {
            **ATTENTION,
            "head_dim": 6,
            "use_bias": True,
            "dropout": 0.1,
            "attention_kernel": {"name": "gaussian", **GAUSSIAN},
        },
    ),
    "MLP": (
        hidden_model,
        layers.MLP,
        {"intermediate_dim": 12, "activation": "gelu", "use_bias": False},
    ),
    "Pooling": (masked_model, layers.Pooling, {"mode": "mean"}),
    "Projection": (hidden_model, layers.Projection, {"units": 12, "use_bias": False}),
    "RotaryEmbedding": (
        position_model,
        layers.RotaryEmbedding,
        {"head_dim": 6, "max_wavelength": 50.0, "rope_scaling": LINEAR},
    ),
    "SwiGLU": (hidden_model, layers.SwiGLU, {"intermediate_dim": 12, "use_bias": True}),
    "TokenPositions": (token_model, layers.TokenPositions, {}),
    "TransformerBlock": (
        biased_model,
        layers.TransformerBlock,
        {
            **ATTENTION,
            "intermediate_dim": 12,
            "layer_norm_epsilon": 0.1,
            "attention_bias": True,
            "mlp_bias": False,
            "attention_kernel": {"name": "gaussian", **GAUSSIAN},
            "feed_forward": "mlp",
            "mlp_activation": "gelu",
            "dropout": 0.1,
        },
    ),
}


def flat(outputs):
    return [numpy(x) for x in keras.tree.flatten(outputs)]


def assert_close(a, b, tolerance=1e-5):
    for x, y in zip(flat(a), flat(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def test_every_layer_has_a_case():
    assert set(CASES) == set(layers.__all__)


@pytest.mark.parametrize(("wire", "kind", "arguments"), CASES.values(), ids=CASES)
class TestAlone:
    def test_reloads_from_a_keras_file(self, wire, kind, arguments, tmp_path):
        model, data = wire(kind(**arguments))
        model.save(tmp_path / "model.keras")
        again = load_model(tmp_path / "model.keras")
        assert_close(model(data), again(data), tolerance=1e-6)

    def test_config_round_trip(self, wire, kind, arguments):
        layer = kind(**arguments)
        config = layer.get_config()
        assert arguments.items() <= config.items()
        assert kind.from_config(config).get_config() == config

    def test_is_registered_under_our_name(self, wire, kind, arguments):
        name = keras.saving.get_registered_name(kind)
        assert name == f"llama_keras>{kind.__name__}"

    def test_symbolic_shapes_are_true(self, wire, kind, arguments):
        model, data = wire(kind(**arguments))
        for symbol, value in zip(model.outputs, keras.tree.flatten(model(data)), strict=True):
            assert len(symbol.shape) == len(value.shape)
            for expected, got in zip(symbol.shape, value.shape, strict=True):
                assert expected in (None, got)
            assert symbol.dtype == keras.backend.standardize_dtype(value.dtype)

    @pytest.mark.parametrize("dtype", ["bfloat16", "mixed_float16"])
    def test_every_part_has_the_layer_s_dtype_policy(self, wire, kind, arguments, dtype):
        layer = kind(**arguments, dtype=dtype)
        wire(layer)
        for part in layer._flatten_layers():
            assert part.dtype_policy.name == dtype, part
        for variable in layer.trainable_variables:
            assert variable.dtype == layer.variable_dtype


@pytest.mark.parametrize(
    "name",
    [
        "DotProduct",
        "GaussianKernel",
        "LlamaAttention",
        "MLP",
        "TransformerBlock",
        "Pooling",
        "SwiGLU",
    ],
)
def test_compiled_equals_plain(name):
    wire, kind, arguments = CASES[name]
    model, data = wire(kind(**arguments))
    plain = model(data)
    model.compile(jit_compile=True)
    assert_close(plain, model.predict(data, verbose=0))


def examples():
    return [
        pytest.param(module, code, id=name)
        for module in (layers, models)
        for name in module.__all__
        for code in re.findall(
            r"```python\n(.*?)```", inspect.getdoc(getattr(module, name)) or "", re.DOTALL
        )
    ]


@pytest.mark.parametrize(("module", "code"), examples())
def test_docstring_example_runs(module, code):
    assert len(code.splitlines()) <= 12
    scope = {"keras": keras, **vars(module)}
    exec(code, scope)
    assert np.isfinite(np.concatenate([x.ravel() for x in flat(scope.get("hidden", 0.0))])).all()
