"""GGUF checkpoints (llama.cpp's format): metadata, dequantized tensors, backbone arguments."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from llama_keras.errors import InputError
from llama_keras.weights.files import TensorInfo, map_file
from llama_keras.weights.gguf_header import read_header
from llama_keras.weights.rope_factors import llama3_scaling

ARCHITECTURES = ("llama",)
ROPE_FREQS = "rope_freqs.weight"  # llama3 scaling, as divisors of the rotary frequencies (D/2,)

# Keys of the file, after "llama.", and the `LlamaBackbone` arguments that they set.
_REQUIRED = {
    "block_count": "num_layers",
    "embedding_length": "hidden_dim",
    "feed_forward_length": "intermediate_dim",
    "attention.head_count": "num_query_heads",
    "context_length": "max_sequence_length",
    "attention.layer_norm_rms_epsilon": "layer_norm_epsilon",
}
_OPTIONAL = {
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "rope.freq_base": "rope_max_wavelength",
    "vocab_size": "vocabulary_size",
}
_FRACTIONS = {"attention.layer_norm_rms_epsilon", "rope.freq_base"}
_ROPE_NUMBERS = {
    "rope.scaling.factor",
    "rope.scale_linear",
    "rope.scaling.original_context_length",
    "rope.scaling.low_freq_factor",
    "rope.scaling.high_freq_factor",
}
_ROPE_SCALING = _ROPE_NUMBERS | {"rope.scaling.type"}
# Not part of the computation.
_IGNORED = {"rope.scaling.finetuned", "tensor_data_layout"}
# Understood only at the value that changes nothing.
_NEUTRAL = {
    "expert_count": 0,
    "expert_used_count": 0,
    "attention.causal": True,
    "attention.clamp_kqv": 0.0,
    "attention.max_alibi_bias": 0.0,
    "use_parallel_residual": False,
    "logit_scale": 1.0,
    "embedding_scale": 1.0,
    "residual_scale": 1.0,
    "rope.scaling.attn_factor": 1.0,
}
_MUST_EQUAL_HEAD_DIM = ("rope.dimension_count", "attention.value_length")


class GGUFFile:
    """A GGUF file, memory-mapped; its header is checked before anything else is read.

    Example:
        >>> file = GGUFFile(path)  # doctest: +SKIP
        >>> file.metadata["general.architecture"]  # doctest: +SKIP
        'llama'
        >>> file.read("token_embd.weight").shape  # doctest: +SKIP
        (49152, 576)
    """

    path: Path
    metadata: dict[str, Any]
    """Keys and values of the file as Python numbers, strings, booleans and lists."""
    tensors: dict[str, TensorInfo]
    """By name; shapes are row-major, (out, in) for a projection."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._data = map_file(self.path, kind="GGUF")
        header = read_header(self._data, path=self.path)
        self.metadata, self.tensors = header.metadata, header.tensors
        if self.metadata.get("split.count", 1) not in (0, 1):
            raise InputError(
                f"GGUF file '{self.path}' is one part of {self.metadata['split.count']}. Join the "
                "parts first: llama-gguf-split --merge FIRST_PART.gguf WHOLE.gguf"
            )

    def read(self, name: str) -> np.ndarray:
        """Values of one tensor.

        Args:
            name: A key of `tensors`.

        Returns:
            float32 of the tensor's shape; may be a read-only view of the file.

        Raises:
            InputError: No such tensor, or a storage type that gguf cannot dequantize.
        """
        if name not in self.tensors:
            raise InputError(f"GGUF file '{self.path}' has no tensor '{name}'.")
        info = self.tensors[name]
        raw = self._data[info.offset : info.offset + info.num_bytes]
        rows = raw.reshape(*info.shape[:-1], -1)
        try:
            values = dequantize(rows, GGMLQuantizationType[info.dtype])
        except NotImplementedError as error:
            raise InputError(
                f"GGUF file '{self.path}': tensor '{name}' is stored as {info.dtype}, which cannot "
                "be turned into float32. Use a file quantized as Q8_0, Q4_K_M, F16 or similar."
            ) from error
        return np.asarray(values, np.float32).reshape(info.shape)


def gguf_config(file: GGUFFile) -> dict[str, Any]:
    """Arguments of `LlamaBackbone` for a GGUF file.

    Args:
        file: An open file of architecture llama.

    Returns:
        Keyword arguments, all of them set.

    Raises:
        InputError: Another architecture, a missing key, or a key or value that is not understood.
    """
    architecture = file.metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise InputError(
            f"GGUF file '{file.path}' has the architecture {architecture!r}; known: "
            f"{', '.join(ARCHITECTURES)}. Only Llama models can be loaded."
        )
    prefix = f"{architecture}."
    keys = {k[len(prefix) :]: v for k, v in file.metadata.items() if k.startswith(prefix)}
    missing = sorted(set(_REQUIRED) - set(keys))
    if missing:
        raise InputError(f"GGUF file '{file.path}' lacks the keys {_names(prefix, missing)}.")
    renames = _REQUIRED | _OPTIONAL
    _check_numbers(file, prefix, keys)
    config = {ours: keys[theirs] for theirs, ours in renames.items() if theirs in keys}
    config.setdefault("num_key_value_heads", config["num_query_heads"])
    config.setdefault("head_dim", config["hidden_dim"] // config["num_query_heads"])
    config.setdefault("rope_max_wavelength", 10000.0)
    _check_other_keys(file, prefix, keys, config["head_dim"])
    return config | {
        "vocabulary_size": _vocabulary_size(file, config),
        "rope_scaling": _rope_scaling(file, keys, config),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "attention_bias": "blk.0.attn_q.bias" in file.tensors,
        "mlp_bias": "blk.0.ffn_gate.bias" in file.tensors,
    }


def _names(prefix: str, keys: list[str]) -> str:
    return ", ".join(prefix + key for key in keys)


def _check_numbers(file: GGUFFile, prefix: str, keys: dict[str, Any]) -> None:
    for key in (_REQUIRED | _OPTIONAL).keys() & keys.keys():
        value, kinds = keys[key], (int, float) if key in _FRACTIONS else (int,)
        # Lists are per-layer sizes of pruned models; booleans are ints to Python.
        if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < math.inf:
            shown = f"{type(value).__name__} {str(value)[:40]}"
            raise InputError(
                f"GGUF file '{file.path}': {prefix}{key} should be one positive number, but is "
                f"{shown}. Models whose layers differ in size cannot be loaded."
            )
    for key in _ROPE_NUMBERS & keys.keys():
        value = keys[key]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"GGUF file '{file.path}': {prefix}{key} is no number: {value!r}.")


def _check_other_keys(file: GGUFFile, prefix: str, keys: dict[str, Any], head_dim: int) -> None:
    neutral = _NEUTRAL | dict.fromkeys(_MUST_EQUAL_HEAD_DIM, head_dim)
    for key in sorted(keys.keys() & neutral.keys()):
        if keys[key] != neutral[key]:
            raise InputError(
                f"GGUF file '{file.path}' has {prefix}{key} = {keys[key]!r}; only {neutral[key]!r} "
                "is supported."
            )
    known = set(_REQUIRED) | set(_OPTIONAL) | _ROPE_SCALING | _IGNORED | set(neutral)
    unknown = sorted(keys.keys() - known)
    if unknown:
        raise InputError(
            f"GGUF file '{file.path}' has keys that are not understood: {_names(prefix, unknown)}. "
            "They may change what the model computes, so it is not loaded."
        )


def _vocabulary_size(file: GGUFFile, config: dict[str, Any]) -> int:
    if "token_embd.weight" not in file.tensors:
        raise InputError(f"GGUF file '{file.path}' has no tensor 'token_embd.weight'.")
    rows = file.tensors["token_embd.weight"].shape[0]
    stated = config.get("vocabulary_size", rows)
    if stated != rows:
        raise InputError(
            f"GGUF file '{file.path}' states llama.vocab_size = {stated}, but its embedding has "
            f"{rows} rows. Convert the model again."
        )
    return rows


def _rope_scaling(
    file: GGUFFile, keys: dict[str, Any], config: dict[str, Any]
) -> dict[str, Any] | None:
    kind = keys.get("rope.scaling.type", "linear" if "rope.scale_linear" in keys else "none")
    if ROPE_FREQS in file.tensors:
        if kind not in ("none", "llama3"):
            raise InputError(
                f"GGUF file '{file.path}' has both {ROPE_FREQS} and rope scaling '{kind}'; only "
                "one of them can hold."
            )
        stated = {k.removeprefix("rope.scaling."): v for k, v in keys.items() if k in _ROPE_NUMBERS}
        return llama3_scaling(
            file.read(ROPE_FREQS),
            head_dim=config["head_dim"],
            max_wavelength=config["rope_max_wavelength"],
            stated=stated,
            path=file.path,
        )
    factor = keys.get("rope.scaling.factor", keys.get("rope.scale_linear", 1.0))
    if kind == "none" or (kind == "linear" and factor in (0.0, 1.0)):  # 0: llama.cpp's "unset"
        return None
    if kind != "linear":
        raise InputError(
            f"GGUF file '{file.path}' has llama.rope.scaling.type = '{kind}'; known: none, linear, "
            f"and llama3 through the tensor {ROPE_FREQS}."
        )
    return {"rope_type": "linear", "factor": float(factor)}
