"""Hugging Face's config.json, both ways: every key consumed, ignored on purpose, or refused."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_keras.errors import InputError

MODEL_TYPES = ("llama",)
ARCHITECTURES = ("LlamaForCausalLM",)

# Hugging Face key -> `LlamaBackbone` argument. Keys in DEFAULTS may be absent.
RENAMES = {
    "vocab_size": "vocabulary_size",
    "hidden_size": "hidden_dim",
    "intermediate_size": "intermediate_dim",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_query_heads",
    "num_key_value_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "max_position_embeddings": "max_sequence_length",
    "rms_norm_eps": "layer_norm_epsilon",
    "tie_word_embeddings": "tie_word_embeddings",
    "attention_bias": "attention_bias",
    "mlp_bias": "mlp_bias",
}
# What transformers' LlamaConfig takes for an absent key, so what the checkpoint was made with.
DEFAULTS: dict[str, Any] = {
    "num_key_value_heads": None,
    "head_dim": None,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
}
DEFAULT_ROPE_THETA = 10000.0
_ROPE_KEYS = {"rope_theta", "rope_scaling", "rope_parameters"}
# rope_type -> the numbers that it must have
ROPE_TYPES: dict[str, dict[str, type]] = {
    "default": {},
    "linear": {"factor": float},
    "llama3": {
        "factor": float,
        "low_freq_factor": float,
        "high_freq_factor": float,
        "original_max_position_embeddings": int,
    },
}
# Understood only at the value that changes nothing.
NEUTRAL: dict[str, Any] = {
    "hidden_act": "silu",
    "pretraining_tp": 1,
    "partial_rotary_factor": 1.0,
    "rope_interleaved": False,
    "is_llama_config": True,
    "sliding_window": None,
    "quantization_config": None,
    "is_encoder_decoder": False,
    "add_cross_attention": False,
    "tie_encoder_decoder": False,
    "pruned_heads": {},
}
# Training, generation, bookkeeping: no part of what the backbone computes.
IGNORED = {
    *(
        "initializer_range",
        "attention_dropout",
        "use_cache",
        "is_decoder",
        "gradient_checkpointing",
    ),
    *("torch_dtype", "dtype", "transformers_version", "_name_or_path", "auto_map", "torchscript"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id"),
    *("decoder_start_token_id", "_attn_implementation_autoset", "transformers.js_config"),
    *("output_attentions", "output_hidden_states", "return_dict", "chunk_size_feed_forward"),
    *("id2label", "label2id", "num_labels", "problem_type", "finetuning_task"),
    *("max_length", "min_length", "do_sample", "temperature", "top_k", "top_p", "num_beams"),
    *("repetition_penalty", "task_specific_params"),
}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        InputError: The file is missing, not UTF-8, not JSON, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:  # also UnicodeDecodeError
        raise InputError(f"'{path}' is not JSON: {error}. Fetch the file again.") from error
    if not isinstance(value, dict):
        raise InputError(f"'{path}' should hold a JSON object, but holds {type(value).__name__}.")
    return value


def huggingface_config(config: Mapping[str, Any], *, path: Any = "config.json") -> dict[str, Any]:
    """Arguments of `LlamaBackbone` for a Hugging Face configuration.

    Args:
        config: The content of config.json.
        path: For messages.

    Returns:
        Keyword arguments, all of them set.

    Raises:
        InputError: Another model type, a missing key, or a key or value that is not understood.
    """
    _check_type(config, path)
    _check_keys(config, path)
    values = {ours: _value(config, theirs, path) for theirs, ours in RENAMES.items()}
    if values["num_key_value_heads"] is None:
        values["num_key_value_heads"] = values["num_query_heads"]
    if values["head_dim"] is None:
        values["head_dim"] = values["hidden_dim"] // values["num_query_heads"]
    return values | _rope(config, path)


def _check_type(config: Mapping[str, Any], path: Any) -> None:
    found = config.get("model_type")
    if found not in MODEL_TYPES:
        raise InputError(
            f"'{path}' has model_type {found!r}; known: {', '.join(MODEL_TYPES)}. Only Llama "
            "models can be loaded."
        )
    architectures = config.get("architectures") or list(ARCHITECTURES)
    if not isinstance(architectures, list) or any(a not in ARCHITECTURES for a in architectures):
        raise InputError(
            f"'{path}' has architectures {architectures!r}; known: {', '.join(ARCHITECTURES)}. "
            "Other heads are not loaded."
        )


def _check_keys(config: Mapping[str, Any], path: Any) -> None:
    known = {"model_type", "architectures", *RENAMES, *_ROPE_KEYS, *NEUTRAL, *IGNORED}
    unknown = sorted(set(config) - known)
    if unknown:
        raise InputError(
            f"'{path}' has keys that are not understood: {', '.join(unknown)}. They may change "
            "what the model computes, so it is not loaded."
        )
    for key in sorted(NEUTRAL.keys() & set(config)):
        if config[key] != NEUTRAL[key]:
            raise InputError(
                f"'{path}' has {key} = {_short(config[key])}; only {NEUTRAL[key]!r} is supported."
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _value(config: Mapping[str, Any], key: str, path: Any) -> Any:
    if key not in config and key not in DEFAULTS:
        raise InputError(f"'{path}' lacks the key {key}. Fetch the file again.")
    default = DEFAULTS.get(key)
    value = config.get(key, default)
    if value is None and key in DEFAULTS and default is None:
        return None
    if isinstance(default, bool):
        good = isinstance(value, bool)
    else:
        good = _positive(value, float if isinstance(default, float) else int)
    if not good:
        wanted = "true or false" if isinstance(default, bool) else "a positive number"
        raise InputError(f"'{path}' has {key} = {_short(value)}; expected {wanted}.")
    return value


def _positive(value: Any, kind: type) -> bool:
    kinds = (int, float) if kind is float else (int,)
    return isinstance(value, kinds) and not isinstance(value, bool) and 0 < value < math.inf


def _rope(config: Mapping[str, Any], path: Any) -> dict[str, Any]:
    old = _rope_fields(config.get("rope_scaling"), "rope_scaling", path)
    new = _rope_fields(config.get("rope_parameters"), "rope_parameters", path)
    if old and new and old != new:
        raise InputError(f"'{path}' has rope_scaling and rope_parameters, which differ.")
    fields = dict(new or old)
    thetas = [
        t for t in (config.get("rope_theta"), fields.pop("rope_theta", None)) if t is not None
    ]
    if thetas[1:] and thetas[0] != thetas[1]:
        raise InputError(f"'{path}' states two values of rope_theta: {_short(thetas)}.")
    theta = thetas[0] if thetas else DEFAULT_ROPE_THETA
    if not _positive(theta, float):
        raise InputError(f"'{path}' has rope_theta = {_short(theta)}; expected a positive number.")
    return {
        "rope_max_wavelength": float(theta),
        "rope_scaling": _rope_scaling(fields, path),
    }


def _rope_fields(value: Any, key: str, path: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"'{path}' has {key} = {_short(value)}; expected an object.")
    fields = dict(value)
    kinds = [fields.pop(name) for name in ("rope_type", "type") if name in fields]
    if kinds[1:] and kinds[0] != kinds[1]:
        raise InputError(f"'{path}': {key} has both rope_type and type, which differ.")
    if fields.pop("partial_rotary_factor", 1.0) != 1.0:
        raise InputError(f"'{path}': {key} has a partial_rotary_factor; only 1.0 is supported.")
    return fields | {"rope_type": kinds[0] if kinds else "default"}


def _rope_scaling(fields: dict[str, Any], path: Any) -> dict[str, Any] | None:
    kind = fields.pop("rope_type", "default")
    if not isinstance(kind, str) or kind not in ROPE_TYPES:
        raise InputError(f"'{path}' has rope type {kind!r}; known: {', '.join(ROPE_TYPES)}.")
    numbers = ROPE_TYPES[kind]
    if fields.keys() != numbers.keys():
        raise InputError(
            f"'{path}': rope type {kind} needs {', '.join(numbers) or 'no further keys'}; received "
            f"{', '.join(sorted(fields)) or 'none'}."
        )
    for key, number in numbers.items():
        if not _positive(fields[key], number):
            raise InputError(
                f"'{path}' has {key} = {_short(fields[key])} in its rope settings; expected a "
                "positive number."
            )
    if kind == "default":
        return None
    return {"rope_type": kind} | {key: number(fields[key]) for key, number in numbers.items()}


# What Hugging Face's Llama is in the options that its config.json does not have.
ONLY = {
    "attention_mask": "causal",
    "attention_kernel": "dot_product",
    "feed_forward": "swiglu",
    "positions": "rotary",
}


def huggingface_json(
    config: Any, *, dtype: str, extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The content of config.json for a backbone; `transformers` 4 and 5 both read it.

    Args:
        config: A `LlamaConfig`.
        dtype: Of the tensors, e.g. "bfloat16".
        extra: Further keys of `IGNORED`, such as bos_token_id and eos_token_id.

    Returns:
        A JSON object; `huggingface_config` gives the backbone's arguments back.

    Raises:
        InputError: A setting that Hugging Face's Llama cannot express, or an unknown extra key.
    """
    for name, only in ONLY.items():
        value = getattr(config, name, only)
        if value != only:
            raise InputError(
                f"This backbone has {name}={value!r}, which Hugging Face's Llama cannot "
                "express: it would compute something else. Use save_to_preset to keep it."
            )
    unknown = sorted(set(extra or {}) - IGNORED)
    if unknown:
        raise InputError(f"Extra keys of config.json may not be {', '.join(unknown)}.")
    scaling = config.rope_scaling
    if scaling and scaling["rope_type"] == "default":
        scaling = None
    return {
        **(extra or {}),
        "architectures": list(ARCHITECTURES),
        "model_type": MODEL_TYPES[0],
        "hidden_act": NEUTRAL["hidden_act"],
        "torch_dtype": dtype,
        **{theirs: getattr(config, ours) for theirs, ours in RENAMES.items()},
        "rope_theta": config.rope_max_wavelength,
        "rope_scaling": dict(scaling) if scaling else None,
    }
