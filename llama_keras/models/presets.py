"""From a preset to a backbone's arguments, and from a backbone to a directory that is a preset."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from llama_keras.errors import InputError
from llama_keras.models.config import LlamaConfig
from llama_keras.weights.gguf import GGUFFile, gguf_config
from llama_keras.weights.presets import PRESET_FILE, Preset, Source
from llama_keras.weights.safetensors import huggingface_config

WEIGHTS_FILE = "model.weights.h5"


def _json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"'{path}' is not readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"'{path}' must hold a JSON object.")
    return content


def _preset(source: Source) -> Preset:
    assert source.preset is not None  # resolve() gives random weights to built-in rows only
    return source.preset


def _path(source: Source) -> Path:
    assert source.path is not None  # resolve() gives a path to every kind but random weights
    return source.path


_CONFIG_READERS: dict[str, Callable[[Source], dict]] = {
    "gguf": lambda source: gguf_config(GGUFFile(_path(source))),
    "huggingface": lambda source: huggingface_config(_json(_path(source) / "config.json")),
    "keras": lambda source: _json(_path(source) / PRESET_FILE).get("backbone", {}),
    "random": lambda source: dict(_preset(source).config),
}


def backbone_config(source: Source) -> dict:
    """Gives the `LlamaBackbone` arguments of a resolved preset.

    Raises:
        InputError: the description is damaged, incomplete, or of another architecture.
    """
    config = _CONFIG_READERS[source.kind](source)
    unknown = set(config) - set(LlamaConfig.__dataclass_fields__)
    if unknown:
        raise InputError(f"'{source.name}' has unknown backbone arguments: {sorted(unknown)}.")
    try:
        return LlamaConfig(**config).to_dict()
    except TypeError as error:
        raise InputError(f"'{source.name}' does not describe a backbone: {error}.") from error


def save_to_preset(directory, *, backbone, tokenizer=None) -> None:
    """Writes a backbone, and its tokenizer, to a new directory that `from_preset` reads.

    The directory appears under its name only when it is complete.

    Raises:
        InputError: the directory exists already.
    """
    directory = Path(directory)
    if directory.exists():
        raise InputError(f"'{directory}' exists already; choose another name or remove it.")
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=directory.parent, prefix=".preset-"))
    try:
        description = {"format": 1, "backbone": backbone.config.to_dict()}
        (temporary / PRESET_FILE).write_text(json.dumps(description, indent=2), encoding="utf-8")
        backbone.save_weights(temporary / WEIGHTS_FILE)
        if tokenizer is not None:
            tokenizer.save_to_directory(temporary)
        os.chmod(temporary, 0o755)
        os.replace(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
