import dataclasses
import json

import pytest

from llama_keras.errors import InputError
from llama_keras.models import LlamaConfig
from tests.models.backbone_suite import LLAMA3, SIZES, VARIANTS


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_survives_json(variant):
    config = LlamaConfig(**{**SIZES, **variant})
    again = LlamaConfig(**json.loads(json.dumps(config.to_dict())))
    assert again == config and again.to_dict() == config.to_dict()


def test_every_field_survives_with_a_value_of_its_own():
    config = LlamaConfig(
        vocabulary_size=11,
        num_layers=3,
        num_query_heads=6,
        num_key_value_heads=2,
        hidden_dim=20,
        intermediate_dim=14,
        head_dim=8,
        max_sequence_length=77,
        rope_max_wavelength=123.0,
        rope_scaling=LLAMA3,
        layer_norm_epsilon=1e-3,
        tie_word_embeddings=True,
        attention_bias=True,
        mlp_bias=True,
        dropout=0.25,
        attention_mask="bidirectional",
        attention_kernel="gaussian",
        attention_temperature=0.5,
        learned_temperature=True,
        normalize_attention=False,
        feed_forward="mlp",
        mlp_activation="gelu",
        positions="none",
    )
    for field in dataclasses.fields(config):
        assert getattr(config, field.name) != field.default, f"{field.name} is not tried"
    assert LlamaConfig(**config.to_dict()) == config


def test_head_size_follows_from_width_and_heads():
    assert LlamaConfig(**SIZES).head_dim == 4
    assert LlamaConfig(**{**SIZES, "hidden_dim": 18, "head_dim": 10}).head_dim == 10


def test_an_mlp_has_four_times_the_width_and_biases():
    sizes = {**SIZES, "intermediate_dim": None}
    mlp = LlamaConfig(**sizes, feed_forward="mlp")
    assert (mlp.intermediate_dim, mlp.mlp_bias) == (64, True)
    assert LlamaConfig(**sizes, feed_forward="mlp", mlp_bias=False).mlp_bias is False
    assert LlamaConfig(**SIZES).mlp_bias is False


def test_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        LlamaConfig(**SIZES).num_layers = 3  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 0}, "num_layers must be a positive integer; received 0"),
        ({"vocabulary_size": 2.5}, "vocabulary_size .*2.5"),
        ({"hidden_dim": "16"}, "hidden_dim .*'16'"),
        ({"num_query_heads": 0}, "num_query_heads"),
        ({"hidden_dim": 18}, "hidden_dim=18 .*num_query_heads=4; give head_dim"),
        ({"head_dim": -4}, "head_dim must be a positive integer; received -4"),
        ({"head_dim": 2.0}, "head_dim"),
        ({"num_key_value_heads": 3}, "num_key_value_heads=3"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\); received 1.0"),
        ({"dropout": "a"}, "dropout must be a number; received 'a'"),
        ({"rope_max_wavelength": 0.0}, "rope_max_wavelength must be positive"),
        ({"rope_max_wavelength": None}, "rope_max_wavelength must be a number"),
        ({"layer_norm_epsilon": -1e-5}, "layer_norm_epsilon must be positive"),
        ({"attention_mask": "upper"}, r"'upper'.*\['causal', 'bidirectional', 'prefix'\]"),
        ({"attention_kernel": "cosine"}, r"'cosine'.*\['dot_product', 'gaussian'\]"),
        ({"attention_temperature": 2.0}, "acts only with attention_kernel='gaussian'"),
        ({"learned_temperature": True}, "acts only with attention_kernel='gaussian'"),
        ({"normalize_attention": False}, "acts only with attention_kernel='gaussian'"),
        ({"attention_kernel": "gaussian", "attention_temperature": 0.0}, "received 0.0"),
        ({"attention_kernel": "gaussian", "attention_temperature": "1"}, "received '1'"),
        ({"feed_forward": "glu"}, r"'glu'.*\['swiglu', 'mlp'\]"),
        ({"mlp_activation": "gelu"}, "acts only with feed_forward='mlp'"),
        ({"feed_forward": "mlp", "mlp_activation": "gulu"}, "no activation 'gulu'"),
        ({"intermediate_dim": None}, "intermediate_dim must be a positive integer; received None"),
        ({"num_layers": True}, "num_layers must be a positive integer; received True"),
        ({"positions": "sine"}, r"'sine'.*\['rotary', 'learned', 'none'\]"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "'yarn'"),
    ],
    ids=str,
)
def test_bad_values_are_refused_by_name(changes, message):
    with pytest.raises(InputError, match=message):
        LlamaConfig(**{**SIZES, **changes})


def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match="intermediate_size"):
        LlamaConfig(**SIZES, intermediate_size=3)  # pyright: ignore[reportCallIssue]
