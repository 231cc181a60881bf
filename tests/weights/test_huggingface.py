import pytest

from llama_keras.errors import InputError
from llama_keras.models.config import LlamaConfig
from llama_keras.weights.huggingface import huggingface_config, huggingface_json, read_json
from tests.golden.parity_table import VARIANTS
from tests.weights.gguf_files import read_config_json

# config.json of HuggingFaceTB/SmolLM2-135M-Instruct, as its owners publish it.
SMOLLM2 = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 576,
    "initializer_range": 0.041666666666666664,
    "intermediate_size": 1536,
    "is_llama_config": True,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "pad_token_id": 2,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_interleaved": False,
    "rope_scaling": None,
    "rope_theta": 100000,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}},
    "transformers_version": "4.42.3",
    "use_cache": True,
    "vocab_size": 49152,
}
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def config(**changes):
    merged = SMOLLM2 | changes
    return {key: value for key, value in merged.items() if value != "absent"}


def test_smollm2_equals_its_preset_row():
    from llama_keras.weights.presets import PRESETS

    assert huggingface_config(SMOLLM2) == PRESETS["smollm2-135m-instruct"].config


def test_absent_keys_take_the_defaults_of_transformers():
    names = ("num_key_value_heads", "rms_norm_eps", "tie_word_embeddings", "rope_theta")
    names += ("max_position_embeddings", "attention_bias", "mlp_bias", "rope_scaling")
    values = huggingface_config(config(**dict.fromkeys(names, "absent")))
    assert values["num_key_value_heads"] == 9
    assert values["layer_norm_epsilon"] == 1e-6
    assert values["tie_word_embeddings"] is False
    assert values["rope_max_wavelength"] == 10000.0
    assert values["max_sequence_length"] == 2048
    assert not values["attention_bias"] and not values["mlp_bias"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 2}}, {"rope_type": "linear", "factor": 2.0}),
        (
            {"rope_scaling": {"rope_type": "llama3", **LLAMA3}},
            {"rope_type": "llama3", **LLAMA3},
        ),
        (
            {"rope_scaling": {"rope_type": "llama3", "type": "llama3", **LLAMA3}},
            {"rope_type": "llama3", **LLAMA3},
        ),
        ({"rope_scaling": {"rope_type": "default"}}, None),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 100000}}, None),
        (
            {
                "rope_theta": "absent",
                "rope_parameters": {"rope_type": "llama3", "rope_theta": 100000.0, **LLAMA3},
            },
            {"rope_type": "llama3", **LLAMA3},
        ),
    ],
)
def test_rope_settings_of_old_and_new_files(changes, expected):
    values = huggingface_config(config(**changes))
    assert values["rope_scaling"] == expected
    assert values["rope_max_wavelength"] == 100000.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mistral"}, "model_type 'mistral'; known: llama"),
        ({"model_type": "absent"}, "model_type None"),
        ({"architectures": ["LlamaForTokenClassification"]}, "known: LlamaForCausalLM"),
        ({"attn_logit_softcapping": 50.0}, "not understood: attn_logit_softcapping"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'; only 'silu'"),
        ({"pretraining_tp": 2}, "pretraining_tp = 2"),
        ({"rope_interleaved": True}, "rope_interleaved"),
        ({"vocab_size": "absent"}, "lacks the key vocab_size"),
        ({"vocab_size": 0}, "vocab_size = 0; expected a positive number"),
        ({"vocab_size": 1.5}, "vocab_size = 1.5"),
        ({"vocab_size": None}, "vocab_size = None"),
        ({"rms_norm_eps": "tiny"}, "rms_norm_eps = 'tiny'"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps = nan"),
        ({"rms_norm_eps": None}, "rms_norm_eps = None"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings = 1; expected true or false"),
        ({"rope_theta": -1}, "rope_theta = -1"),
        ({"rope_theta": [1, 2]}, "rope_theta"),
        ({"rope_scaling": "linear"}, "expected an object"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "'yarn'; known: default, linear"),
        ({"rope_scaling": {"rope_type": ["linear"], "factor": 2.0}}, "known: default, linear"),
        ({"rope_scaling": {"rope_type": "linear"}}, "linear needs factor; received none"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0.0}}, "factor = 0.0"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0, "beta": 1}}, "received beta"),
        ({"rope_scaling": {"rope_type": "linear", "type": "llama3", "factor": 2.0}}, "differ"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5.0}}, "two values of rope_th"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
    ],
)
def test_what_is_not_understood_is_refused(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        huggingface_config(config(**changes), path="model/config.json")
    assert "model/config.json" in str(caught.value)


@pytest.mark.parametrize("variant", VARIANTS)
def test_json_round_trip(variant):
    values = huggingface_config(read_config_json(variant))
    again = huggingface_json(LlamaConfig(**values), dtype="bfloat16", extra={"bos_token_id": 1})
    assert huggingface_config(again) == values
    assert again["bos_token_id"] == 1 and again["torch_dtype"] == "bfloat16"


def test_what_hugging_face_cannot_express_is_refused():
    values = huggingface_config(read_config_json("tied_gqa"))
    for name, value in (
        ("attention_mask", "bidirectional"),
        ("attention_kernel", "gaussian"),
        ("feed_forward", "mlp"),
        ("positions", "learned"),
    ):
        backbone = LlamaConfig(**{**values, name: value})
        with pytest.raises(InputError, match=f"{name}='{value}', .* cannot express"):
            huggingface_json(backbone, dtype="float32")
    with pytest.raises(InputError, match="may not be vocab_size"):
        huggingface_json(LlamaConfig(**values), dtype="float32", extra={"vocab_size": 3})


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "not JSON"), (b"\xff", "not JSON"), (b"[]", "JSON object, but holds list")],
)
def test_broken_json_is_refused(content, message, tmp_path):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_json(tmp_path / "config.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_json(tmp_path / "none.json")
