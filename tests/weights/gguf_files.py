"""Tiny GGUF files, written as llama.cpp's converter does, from the golden checkpoints."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from llama_keras.weights.names import weight_names
from llama_keras.weights.presets import backbone_config, resolve
from llama_keras.weights.rope_factors import llama3_factors
from llama_keras.weights.safetensors import open_checkpoint
from tests.golden.parity_table import CHECKPOINTS


class Config:
    """Keyword arguments as attributes."""

    def __init__(self, **arguments: Any):
        self.__dict__.update(arguments)


def permute(weights: np.ndarray, num_heads: int) -> np.ndarray:
    """`LlamaModel.permute` of llama.cpp's convert_hf_to_gguf.py, word for word but for names."""
    return (
        weights.reshape(num_heads, 2, weights.shape[0] // num_heads // 2, *weights.shape[1:])
        .swapaxes(1, 2)
        .reshape(weights.shape)
    )


def write_llama(
    path: Path,
    variant: str = "tied_gqa",
    *,
    quantization: str = "F32",
    tensors: dict[str, np.ndarray] | None = None,
    keys: dict[str, Any] | None = None,
) -> Path:
    """Writes a golden checkpoint as GGUF.

    `tensors` and `keys` add to it or replace; None as a value leaves the key out.
    """
    config = backbone_config(resolve(CHECKPOINTS / variant))
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in (_keys(config) | (keys or {})).items():
        _add(writer, key, value)
    for name, values in (_tensors(variant, config) | (tensors or {})).items():
        whole_blocks = values.ndim > 1 and values.shape[-1] % 32 == 0
        kind = gguf.GGMLQuantizationType[quantization if whole_blocks else "F32"]
        stored = gguf.quants.quantize(np.ascontiguousarray(values, np.float32), kind)
        writer.add_tensor(name, stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _keys(config: dict[str, Any]) -> dict[str, Any]:
    scaling = config["rope_scaling"] or {}
    keys = {
        "llama.block_count": config["num_layers"],
        "llama.context_length": config["max_sequence_length"],
        "llama.embedding_length": config["hidden_dim"],
        "llama.feed_forward_length": config["intermediate_dim"],
        "llama.attention.head_count": config["num_query_heads"],
        "llama.attention.head_count_kv": config["num_key_value_heads"],
        "llama.attention.layer_norm_rms_epsilon": config["layer_norm_epsilon"],
        "llama.attention.key_length": config["head_dim"],
        "llama.attention.value_length": config["head_dim"],
        "llama.rope.dimension_count": config["head_dim"],
        "llama.rope.freq_base": config["rope_max_wavelength"],
        "llama.vocab_size": config["vocabulary_size"],
        "general.file_type": 0,
        "general.languages": ["en", "zh"],
    }
    if scaling.get("rope_type") == "linear":
        keys |= {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    if scaling.get("rope_type") == "llama3":  # not the released numbers: they must be stated
        keys["llama.rope.scaling.original_context_length"] = 32
    return keys


def _tensors(variant: str, config: dict[str, Any]) -> dict[str, np.ndarray]:
    checkpoint = open_checkpoint(CHECKPOINTS / variant)
    tensors = {}
    for row in weight_names(Config(**config)):
        values = checkpoint.read(row.hugging_face).astype(np.float32)
        heads = {"attn_q": "num_query_heads", "attn_k": "num_key_value_heads"}
        part = row.gguf.split(".")[-2]
        tensors[row.gguf] = permute(values, config[heads[part]]) if part in heads else values
    scaling = config["rope_scaling"] or {}
    if scaling.get("rope_type") == "llama3":
        tensors["rope_freqs.weight"] = llama3_factors(
            scaling, head_dim=config["head_dim"], max_wavelength=config["rope_max_wavelength"]
        ).astype(np.float32)
    return tensors


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    adders = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
    }
    if value is not None:
        adders[type(value)](key, value)


def read_config_json(variant: str) -> dict[str, Any]:
    """config.json of a golden checkpoint."""
    return json.loads((CHECKPOINTS / variant / "config.json").read_text())
