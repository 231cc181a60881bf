"""A task in a preset: its settings and its head's weights, beside the backbone and tokenizer.

`task.json` has `format`, `class_name` and `config` (arguments of the constructor);
`task.safetensors` has the weights that are not the backbone's, float32, by their Keras paths.
"""

import inspect
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras import ops

from llama_keras.errors import InputError
from llama_keras.weights.huggingface import read_json
from llama_keras.weights.presets import resolve
from llama_keras.weights.safetensors_file import SafetensorsFile, write_safetensors

logger = logging.getLogger("llama_keras")

TASK_FILE = "task.json"
HEAD_FILE = "task.safetensors"
FORMAT = 1
# Settings that say what a head's numbers mean, though its form stays.
MEANING = ("pooling", "multi_label", "pairs", "tagged_token", "null_answers")
# Kept elsewhere in the preset, or a matter of the next training.
_ELSEWHERE = ("name", "backbone", "tokenizer", "cleaning", "strategy")


def write_task(task, folder: Path) -> None:
    """Writes what a task is, without its backbone and tokenizer, to a preset's folder."""
    description = {"format": FORMAT, "class_name": type(task).__name__, "config": _config(task)}
    (folder / TASK_FILE).write_text(json.dumps(description, indent=2), encoding="utf-8")
    if head := _head(task):
        shapes = {path: tuple(weight.shape) for path, weight in head.items()}
        values = ((path, ops.convert_to_numpy(weight)) for path, weight in head.items())
        write_safetensors(folder / HEAD_FILE, values, shapes, dtype="float32")


def task_config(preset, kind: type) -> dict[str, Any]:
    """Gives the constructor's arguments of the task that a preset holds.

    Args:
        preset: see `weights.presets.resolve`.
        kind: the class that is to be made. The preset's task is of this class or one above it.

    Returns:
        Arguments but for backbone, tokenizer, cleaning and strategy; empty where the preset holds
        no task, or one of another kind.

    Raises:
        InputError: the description is damaged, or of a later version.
    """
    path = _file(preset, TASK_FILE)
    if path is None:
        return {}
    description = read_json(path)
    config = description.get("config")
    if description.get("format") != FORMAT or not isinstance(config, dict):
        raise InputError(
            f"'{path}' is not a task's description of format {FORMAT}, or is damaged. Save the "
            "preset again, or remove the file to have the backbone alone."
        )
    if description.get("class_name") not in {above.__name__ for above in kind.__mro__}:
        return {}
    known = {name for above in kind.__mro__ for name in inspect.signature(above).parameters}
    if unknown := sorted(set(config) - known):
        raise InputError(f"'{path}' has the setting '{unknown[0]}', which {kind.__name__} lacks.")
    return config


def load_head(task, preset, saved: Mapping[str, Any]) -> None:
    """Fills a task's head with the weights of the preset that its settings came from.

    A head for other labels, or of another form, keeps its new weights; that is logged.

    Args:
        task: the task.
        preset: see `task_config`.
        saved: what `task_config` gave.

    Raises:
        InputError: the weights do not fit the preset's own description.
    """
    path = _file(preset, HEAD_FILE)
    head = _head(task)
    shapes = {name: tuple(weight.shape) for name, weight in head.items()}
    ours = _config(task)
    if saved.get("labels") != ours.get("labels"):
        logger.warning(
            "The head of '%s' knows the labels %s; this one has others and begins anew",
            *(preset, saved.get("labels")),
        )
        return
    file = SafetensorsFile(path) if path else None
    found = {name: tuple(info.shape) for name, info in file.tensors.items()} if file else {}
    if found != shapes:
        if all(ours.get(name) == value for name, value in saved.items()):
            raise InputError(
                f"The preset '{preset}' does not hold the head that its {TASK_FILE} describes: "
                f"{found or 'nothing'} instead of {shapes}. Save it again."
            )
        logger.warning("The head of '%s' has another form; this one begins anew", preset)
        return
    changed = [name for name in MEANING if saved.get(name) != ours.get(name)]
    if changed:
        before = ", ".join(f"{name}={saved.get(name)!r}" for name in changed)
        logger.warning("The head of '%s' learned with %s; it is kept all the same", preset, before)
    if file:
        for name, weight in head.items():
            weight.assign(file.read(name))


def _file(preset, name: str) -> Path | None:
    """Gives the path of one of a preset's files; None where it has none."""
    source = resolve(preset)
    if source.kind != "keras" or source.path is None:
        return None
    path = source.path / name
    return path if path.is_file() else None


def _config(task) -> dict[str, Any]:
    config = {key: value for key, value in task.get_config().items() if key not in _ELSEWHERE}
    return json.loads(json.dumps(config))  # tuples become lists, as they come back


def _head(task) -> dict[str, Any]:
    inner = {id(weight) for weight in task.backbone.weights}
    return {weight.path: weight for weight in task.weights if id(weight) not in inner}
