"""Hugging Face checkpoints: a folder of config.json and safetensors, read and written."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from llama_keras.atomic import new_directory
from llama_keras.errors import InputError
from llama_keras.weights.files import TensorInfo
from llama_keras.weights.huggingface import huggingface_config, huggingface_json, read_json
from llama_keras.weights.names import checkpoint_shape, to_hugging_face, value, weight_names
from llama_keras.weights.safetensors_file import WRITE_DTYPES, SafetensorsFile, write_safetensors

__all__ = [
    "Checkpoint",
    "SafetensorsFile",
    "huggingface_config",
    "open_checkpoint",
    "write_checkpoint",
    "write_weights",
]

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"


class Checkpoint:
    """The tensors of a checkpoint folder, whichever of its files they lie in."""

    path: Path
    tensors: dict[str, TensorInfo]
    """By name."""

    def __init__(self, path: Path, files: Mapping[str, SafetensorsFile]):
        self.path = path
        self._files = files
        self.tensors = {name: file.tensors[name] for name, file in files.items()}

    def read(self, name: str) -> np.ndarray:
        """Values of one tensor, as `SafetensorsFile.read` gives them."""
        if name not in self._files:
            raise InputError(f"The checkpoint '{self.path}' has no tensor '{name}'.")
        return self._files[name].read(name)


def open_checkpoint(directory: str | Path) -> Checkpoint:
    """The tensors of a Hugging Face folder: one file, or several with an index.

    Args:
        directory: Holds model.safetensors, or model.safetensors.index.json and its shards.

    Returns:
        A `Checkpoint`; the headers of all its files are checked.

    Raises:
        InputError: No such files, a damaged one, or an index that does not match its shards.
    """
    folder = Path(directory)
    if (folder / WEIGHTS_FILE).exists():
        file = SafetensorsFile(folder / WEIGHTS_FILE)
        return Checkpoint(folder, dict.fromkeys(file.tensors, file))
    if (folder / INDEX_FILE).exists():
        return Checkpoint(folder, _shards(folder))
    pickled = sorted(p.name for p in folder.glob("*.bin"))
    hint = (
        f" It holds {pickled[0]}, a pickle, which can run code when opened and is not "
        "read: convert it to safetensors."
        if pickled
        else ""
    )
    raise InputError(f"'{folder}' has neither {WEIGHTS_FILE} nor {INDEX_FILE}.{hint}")


def _shards(folder: Path) -> dict[str, SafetensorsFile]:
    index = folder / INDEX_FILE
    mapping = read_json(index).get("weight_map")
    if not isinstance(mapping, dict) or not mapping:
        raise InputError(f"'{index}' has no object 'weight_map'. Fetch the file again.")
    files: dict[str, SafetensorsFile] = {}
    for name in mapping.values():
        # A plain file name: an index must not reach outside its folder.
        if not _is_plain(name):
            raise InputError(
                f"'{index}' names the shard {name!r}, which is no plain file name ending in "
                ".safetensors."
            )
        if name not in files:
            files[name] = SafetensorsFile(folder / name)
    _check_index(index, mapping, files)
    return {tensor: files[name] for tensor, name in mapping.items()}


def _is_plain(name: Any) -> bool:
    plain = isinstance(name, str) and Path(name).name == name and "\\" not in name
    return plain and name.endswith(".safetensors")


def _check_index(index: Path, mapping: dict[str, str], files: dict[str, SafetensorsFile]) -> None:
    for tensor, name in mapping.items():
        if tensor not in files[name].tensors:
            raise InputError(f"'{index}' puts tensor '{tensor}' into {name}, which lacks it.")
    for name, file in files.items():
        for tensor in file.tensors:
            if mapping.get(tensor) != name:
                raise InputError(f"'{index}' does not list tensor '{tensor}' of {name}.")


def write_checkpoint(
    backbone: Any,
    directory: str | Path,
    *,
    dtype: str | None = None,
    extra_config: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a Hugging Face checkpoint: config.json and model.safetensors.

    A checkpoint that was read is written with equal bytes when `dtype` is its own. LoRA weights
    are merged into the weights that they adapt.

    Args:
        backbone: A causal `LlamaBackbone`.
        directory: The folder to make; it must not exist, and is never left half written.
        dtype: "float32", "bfloat16" or "float16"; that of the backbone's weights by default.
        extra_config: Further keys for config.json, such as bos_token_id and eos_token_id.

    Returns:
        The folder.

    Raises:
        InputError: The folder exists, the backbone is quantized or not causal, or a value does not
            fit `dtype`.
    """
    dtype = _checked_dtype(backbone, dtype)
    config = huggingface_json(backbone.config, dtype=dtype, extra=extra_config)
    with new_directory(directory) as folder:
        write_weights(backbone, folder / WEIGHTS_FILE, dtype=dtype)
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")
    return Path(directory)


def write_weights(backbone: Any, path: str | Path, *, dtype: str | None = None) -> None:
    """Writes the weights alone, under Hugging Face's names.

    Args:
        backbone: A `LlamaBackbone` of any attention mask.
        path: The .safetensors file.
        dtype: As in `write_checkpoint`.

    Raises:
        InputError: As in `write_checkpoint`.
    """
    dtype = _checked_dtype(backbone, dtype)
    rows = weight_names(backbone.config)
    shapes = {
        row.hugging_face: checkpoint_shape(row, tuple(value(backbone, row.path).shape))
        for row in rows
    }

    def tensors() -> Iterator[tuple[str, np.ndarray]]:
        for row in rows:
            values = np.asarray(value(backbone, row.path))
            yield row.hugging_face, to_hugging_face(row, values)

    write_safetensors(Path(path), tensors(), shapes, dtype=dtype)


def _checked_dtype(backbone: Any, dtype: str | None) -> str:
    embedding = value(backbone, "token_embedding.embeddings")
    dtype = dtype or str(embedding.dtype)
    if dtype not in WRITE_DTYPES:
        raise InputError(f"dtype {dtype!r} cannot be written; known: {', '.join(WRITE_DTYPES)}.")
    return dtype
