"""From a backbone to a directory that is a preset again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_keras.atomic import new_directory
from llama_keras.weights.presets import PRESET_FILE
from llama_keras.weights.safetensors import write_weights

WEIGHTS_FILE = "model.safetensors"


def save_to_preset(
    directory: str | Path, *, backbone, tokenizer=None, cleaning: Mapping[str, Any] | None = None
) -> None:
    """Writes a backbone, and its tokenizer, to a new directory that `from_preset` reads.

    The directory appears under its name only when it is complete.

    Args:
        directory: must not exist.
        backbone: a `LlamaBackbone`.
        tokenizer: its `text.Tokenizer`.
        cleaning: what raw text went through before the tokenizer saw it, as
            `text.Cleaning.get_config` gives it; tasks built on the preset clean so too.

    Raises:
        InputError: the directory exists already, or the backbone is quantized.
    """
    with new_directory(directory) as folder:
        write_preset(folder, backbone=backbone, tokenizer=tokenizer, cleaning=cleaning)


def write_preset(
    folder: Path, *, backbone, tokenizer=None, cleaning: Mapping[str, Any] | None = None
) -> None:
    """Writes the files of a preset to a folder that is there; see `save_to_preset`."""
    description = {"format": 1, "backbone": backbone.config.to_dict()}
    if cleaning is not None:
        description["cleaning"] = dict(cleaning)
    (folder / PRESET_FILE).write_text(json.dumps(description, indent=2), encoding="utf-8")
    write_weights(backbone, folder / WEIGHTS_FILE)
    if tokenizer is not None:
        tokenizer.save_to_directory(folder)
