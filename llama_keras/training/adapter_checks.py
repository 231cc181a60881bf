"""What of a task an adapter has to fit, and the checks that it does.

Axes: I inputs and O outputs of a projection, R rank.
"""

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from keras import ops

from llama_keras.errors import InputError
from llama_keras.training.fine_tuning import Trainable
from llama_keras.weights.adapters import Adapter, Made
from llama_keras.weights.names import weight_names

# Settings of tasks that give the head's weights their meaning.
SETTINGS = ("labels", "pooling", "cleaning", "scheme", "head", "tagged_token", "normalize")
SETTINGS += ("dimensions", "null_answers", "multi_label", "pairs")
# Settings that are chosen on data, or tuned, with the head: taken over instead of compared.
LEARNED = ("threshold", "null_threshold")
# Arguments of a backbone that change nothing of what it computes for a text that fits.
_FREE = ("dropout", "max_sequence_length")
_SIZES = ("num_layers", "num_query_heads", "num_key_value_heads", "hidden_dim", "head_dim")
_SIZES += ("intermediate_dim",)
_SHOWN = 4


class Adapted(Trainable, Protocol):
    """What adapters need of a task."""

    strategy: Any
    optimizer: Any

    def get_config(self) -> dict[str, Any]:
        """Gives the arguments of the constructor."""
        ...

    def scope(self) -> contextlib.AbstractContextManager:
        """Gives the context in which variables of the model's strategy are made."""
        ...


def check_adapter(task: Adapted, adapter: Adapter, path, *, check_base: bool) -> None:
    """Raises `InputError` where an adapter does not fit a task; see `adapters.load_adapter`."""
    backbone, made = task.backbone, adapter.made
    if made:
        _check_task(task, made, path)
        _check_config(backbone, made, path, _SIZES)
    _check_updates(backbone, adapter, path)
    _check_beside(task, adapter, path)
    if made and check_base:
        _check_config(backbone, made, path, sorted(set(made.backbone) - set(_FREE)))
        _check_fingerprint(backbone, adapter, path)


def made_on(task: Adapted, *, leave_out: Iterable[str]) -> Made:
    """Notes what an adapter of a task is made on; `leave_out` as in `base_fingerprint`."""
    return Made(
        task=type(task).__name__,
        settings=_settings(task),
        backbone=_plain(task.backbone.config.to_dict()),
        fingerprint=base_fingerprint(task.backbone, leave_out=leave_out),
    )


def learned_settings(task: Adapted, made: Made | None) -> dict[str, Any]:
    """Gives the `LEARNED` settings of an adapter that a task has, too."""
    noted, ours = made.settings if made else {}, _settings(task)
    return {name: noted[name] for name in LEARNED if name in noted and name in ours}


def projections(backbone) -> dict[str, Any]:
    """Gives the dense layers of the blocks by Hugging Face's names, e.g. "…0.mlp.up_proj"."""

    def step(found, part):
        return found[int(part)] if part.isdigit() else getattr(found, part)

    return {
        row.hugging_face.removesuffix(".weight"): functools.reduce(
            step, row.path.split(".")[:-1], backbone
        )
        for row in weight_names(backbone.config)
        if row.path.endswith(".kernel")
    }


def is_update(weight) -> bool:
    """Says whether a variable is one of a layer's two low-rank matrices."""
    return weight.path.split("/")[-1].startswith("lora_")


def base_fingerprint(backbone, *, leave_out: Iterable[str] = ()) -> str:
    """Gives a name for the weights of a backbone without its updates: their SHA-256.

    Args:
        backbone: A `LlamaBackbone`.
        leave_out: Paths of weights that do not count.
    """
    digest, left_out = hashlib.sha256(), set(leave_out)
    for weight in sorted(backbone.weights, key=lambda weight: weight.path):
        if not is_update(weight) and weight.path not in left_out:
            digest.update(f"{weight.path} {weight.dtype} {tuple(weight.shape)}".encode())
            values = np.ascontiguousarray(ops.convert_to_numpy(weight))
            digest.update(values.reshape(-1).view("uint8").data)
    return digest.hexdigest()


def _settings(task: Adapted) -> dict[str, Any]:
    config = task.get_config()
    return _plain({name: config[name] for name in (*SETTINGS, *LEARNED) if name in config})


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    # As they come back from JSON: tuples become lists.
    return json.loads(json.dumps(values))


def _check_task(task: Adapted, made: Made, path) -> None:
    if made.task != type(task).__name__:
        raise InputError(
            f"The adapter '{path}' was made for a {made.task}; this is a {type(task).__name__}."
        )
    ours = _settings(task)
    compared = {*ours, *made.settings} - set(LEARNED)
    differing = {key for key in compared if ours.get(key) != made.settings.get(key)}
    if differing:
        wanted = ", ".join(f"{key}={made.settings.get(key)!r}" for key in sorted(differing))
        raise InputError(
            f"The adapter '{path}' was made for a {made.task} with {wanted}; this one has "
            f"{', '.join(f'{key}={ours.get(key)!r}' for key in sorted(differing))}. Make the task "
            "with those settings."
        )
    for name, value in learned_settings(task, made).items():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not 0 <= value <= 1:
            raise InputError(
                f"The adapter '{path}' is damaged: {name}={value!r} should be a number from 0 to "
                "1. Save it anew."
            )


def _check_config(backbone, made: Made, path, names: Iterable[str]) -> None:
    ours = _plain(backbone.config.to_dict())
    differing = [name for name in names if ours.get(name) != made.backbone.get(name)]
    if differing:
        wanted = ", ".join(f"{name}={made.backbone.get(name)!r}" for name in differing)
        raise InputError(
            f"The adapter '{path}' was made on a backbone with {wanted}; this one has "
            f"{', '.join(f'{name}={ours.get(name)!r}' for name in differing)}. Make the task from "
            "the preset, and with the backbone_arguments, that it was made on."
        )


def _check_fingerprint(backbone, adapter: Adapter, path) -> None:
    found = base_fingerprint(backbone, leave_out=adapter.beside)
    if adapter.made and found != adapter.made.fingerprint:
        raise InputError(
            f"The adapter '{path}' was made on other base weights: their fingerprint is "
            f"{adapter.made.fingerprint[:12]}…, that of this model {found[:12]}…. Make the task "
            "from the same preset and dtype, or pass check_base=False to use it on these weights "
            "all the same."
        )


def _check_updates(backbone, adapter: Adapter, path) -> None:
    found = projections(backbone)
    if unknown := sorted(set(adapter.updates) - set(found)):
        raise InputError(f"The adapter '{path}' updates {some(unknown)}, which this model lacks.")
    for module, update in adapter.updates.items():
        inputs, outputs = found[module].kernel.shape
        if update.a.shape[1] != inputs or update.b.shape[0] != outputs:
            raise InputError(
                f"The adapter '{path}' updates '{module}' of {update.a.shape[1]} inputs and "
                f"{update.b.shape[0]} outputs; here it has {inputs} and {outputs}."
            )
    adapted = {name: layer for name, layer in found.items() if layer.lora_enabled}
    if adapted and adapted.keys() != adapter.updates.keys():
        odd = sorted(adapted.keys() ^ adapter.updates.keys())
        raise InputError(
            f"This model has LoRA updates already, and of others than the adapter '{path}': "
            f"{some(odd)}. Load it into a new task, or call merge_lora first."
        )
    ranks = sorted({layer.lora_rank for layer in adapted.values()} - {adapter.rank})
    if ranks:
        raise InputError(
            f"The adapter '{path}' has rank {adapter.rank}, but the updates that this model has "
            f"already are of rank {ranks[0]}. Load it into a new task, or call merge_lora first."
        )


def _check_beside(task: Adapted, adapter: Adapter, path) -> None:
    inner = {id(weight) for weight in task.backbone.weights}
    ours = {weight.path: weight for weight in task.weights if not is_update(weight)}
    head = {weight.path for weight in task.trainable_weights if id(weight) not in inner}
    missing = head - set(adapter.beside) if adapter.made else set()
    if odd := sorted(missing | (set(adapter.beside) - set(ours))):
        raise InputError(
            f"The adapter '{path}' and this task do not have the same head: {some(odd)} is in but "
            "one of them. Make the task with the settings that the adapter was made with."
        )
    for name, values in adapter.beside.items():
        if tuple(ours[name].shape) != values.shape:
            raise InputError(
                f"The adapter '{path}' has '{name}' of shape {values.shape}, but this task's has "
                f"{tuple(ours[name].shape)}."
            )


def some(names: Iterable[str]) -> str:
    """Gives the first few names for a message."""
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(f"'{name}'" for name in listed[:_SHOWN]) + more
