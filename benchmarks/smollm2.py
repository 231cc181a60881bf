"""Models of the shape of SmolLM2-135M in three libraries, with random weights."""

from typing import Any

from llama_keras.weights.presets import PRESETS

PRESET = "smollm2-135m-instruct"
DTYPES = ("float32", "bfloat16")
# What KerasHub's LlamaBackbone takes; ours has these values as its defaults for the rest.
KEYS = (
    "vocabulary_size",
    "num_layers",
    "num_query_heads",
    "num_key_value_heads",
    "hidden_dim",
    "intermediate_dim",
    "rope_max_wavelength",
    "layer_norm_epsilon",
    "tie_word_embeddings",
)
SIZES = {key: PRESETS[PRESET].config[key] for key in KEYS}


def our_backbone(dtype: str) -> Any:
    """Gives our `LlamaBackbone`."""
    from llama_keras.models import LlamaBackbone

    return LlamaBackbone(**SIZES, dtype=dtype)


def keras_hub_backbone(dtype: str) -> Any:
    """Gives KerasHub's `LlamaBackbone`."""
    from keras_hub.models import LlamaBackbone

    return LlamaBackbone(**SIZES, dtype=dtype)


def hugging_face_model(dtype: str, *, head: bool = False) -> Any:
    """Gives Hugging Face's `LlamaModel`, or with `head` its `LlamaForCausalLM`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

    config = LlamaConfig(
        vocab_size=SIZES["vocabulary_size"],
        num_hidden_layers=SIZES["num_layers"],
        num_attention_heads=SIZES["num_query_heads"],
        num_key_value_heads=SIZES["num_key_value_heads"],
        hidden_size=SIZES["hidden_dim"],
        intermediate_size=SIZES["intermediate_dim"],
        rope_parameters={"rope_type": "default", "rope_theta": SIZES["rope_max_wavelength"]},
        rms_norm_eps=SIZES["layer_norm_epsilon"],
        tie_word_embeddings=SIZES["tie_word_embeddings"],
        max_position_embeddings=8192,
        eos_token_id=None,  # all tokens asked for are to be made
    )
    kind = LlamaForCausalLM if head else LlamaModel
    return kind(config).to(getattr(torch, dtype)).eval()
