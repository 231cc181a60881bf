"""From a backbone to a directory that is a preset again."""

import json
from pathlib import Path

from llama_keras.atomic import new_directory
from llama_keras.weights.presets import PRESET_FILE
from llama_keras.weights.safetensors import write_weights

WEIGHTS_FILE = "model.safetensors"


def save_to_preset(directory: str | Path, *, backbone, tokenizer=None) -> None:
    """Writes a backbone, and its tokenizer, to a new directory that `from_preset` reads.

    The directory appears under its name only when it is complete.

    Raises:
        InputError: the directory exists already, or the backbone is quantized.
    """
    with new_directory(directory) as folder:
        description = {"format": 1, "backbone": backbone.config.to_dict()}
        (folder / PRESET_FILE).write_text(json.dumps(description, indent=2), encoding="utf-8")
        write_weights(backbone, folder / WEIGHTS_FILE)
        if tokenizer is not None:
            tokenizer.save_to_directory(folder)
