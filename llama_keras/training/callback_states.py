"""The states of callbacks, as plain values and arrays that a checkpoint holds.

A callback of one's own keeps its state when it has `get_state()`, which gives a dict of plain
values and arrays, and `set_state(state)`, which is called after `on_train_begin`. Keras's own are
in tables here.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from llama_keras.errors import InputError

# Keras's callbacks whose state is some attributes.
_ATTRIBUTES: dict[type, tuple[str, ...]] = {
    keras.callbacks.EarlyStopping: ("best", "wait", "stopped_epoch", "best_epoch", "best_weights"),
    keras.callbacks.ReduceLROnPlateau: ("best", "wait", "cooldown_counter"),
    keras.callbacks.ModelCheckpoint: (
        "best",
        "_batches_seen_since_last_saving",
        "_last_batch_seen",
        "_current_epoch",
    ),
    keras.callbacks.TensorBoard: (
        "_global_train_batch",
        "_global_test_batch",
        "_previous_epoch_iterations",
    ),
    keras.callbacks.SwapEMAWeights: ("_ema_weights_in_model",),
    keras.callbacks.History: ("history", "epoch"),
}


@dataclass(frozen=True)
class _Special:
    """How a callback's state is taken and given back, where attributes are not enough."""

    get: Callable[[Any], dict[str, Any]]
    before: Callable[[Any, dict[str, Any]], None]
    """Called before `on_train_begin`."""


def _csv_state(logger) -> dict[str, Any]:
    logger.csv_file.flush()
    return {"size": os.path.getsize(logger.filename)}


def _continue_csv(logger, state) -> None:
    # Rows after the checkpoint come again.
    if os.path.exists(logger.filename):
        os.truncate(logger.filename, min(state["size"], os.path.getsize(logger.filename)))
    logger.append = True


_SPECIAL: dict[type, _Special] = {keras.callbacks.CSVLogger: _Special(_csv_state, _continue_csv)}


def check_callbacks(callbacks) -> None:
    """Raises `InputError` for callbacks that resume by themselves, less exactly."""
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.BackupAndRestore):
            raise InputError(
                "checkpoints= and BackupAndRestore both resume a run; leave BackupAndRestore out, "
                "which begins an interrupted epoch anew."
            )


def callback_states(callbacks) -> list[tuple[str, dict[str, Any]]]:
    """Gives the class name and the state of each callback that has one, in their order."""
    return [
        (type(callback).__name__, state)
        for callback in callbacks
        if (state := _state(callback)) is not None
    ]


def _state(callback) -> dict[str, Any] | None:
    if hasattr(callback, "get_state"):
        return callback.get_state()
    for kind, special in _SPECIAL.items():
        if isinstance(callback, kind):
            return special.get(callback)
    if (names := _attributes(callback)) is None:
        return None
    return {name: getattr(callback, name) for name in names if hasattr(callback, name)}


def _attributes(callback) -> tuple[str, ...] | None:
    return next((names for kind, names in _ATTRIBUTES.items() if isinstance(callback, kind)), None)


def _has_state(callback) -> bool:
    special = isinstance(callback, tuple(_SPECIAL))
    return hasattr(callback, "get_state") or special or _attributes(callback) is not None


def paired(callbacks, states) -> list[tuple[Any, dict[str, Any]]]:
    """Gives callbacks with their states: the first of a class has the first of that class.

    Raises:
        InputError: a callback that had a state is not there any more.
    """
    left = [callback for callback in callbacks if _has_state(callback)]
    pairs = []
    for name, state in states:
        found = next((c for c in left if type(c).__name__ == name), None)
        if found is None:
            raise InputError(
                f"The interrupted run had a callback {name} that this one lacks; give fit the same "
                "callbacks, or another folder for the checkpoints."
            )
        left.remove(found)
        pairs.append((found, state))
    return pairs


def prepare_callbacks(pairs) -> None:
    """Gives callbacks what they need of their state before `on_train_begin`."""
    for callback, state in pairs:
        for kind, special in _SPECIAL.items():
            if isinstance(callback, kind):
                special.before(callback, state)


def restore_callbacks(pairs) -> None:
    """Gives callbacks their states, after `on_train_begin`."""
    for callback, state in pairs:
        if hasattr(callback, "set_state"):
            callback.set_state(state)
        elif not isinstance(callback, tuple(_SPECIAL)):
            for name, value in state.items():
                setattr(callback, name, value)


def pack(value, arrays: dict[str, np.ndarray], name: str) -> Any:
    """Gives nested values as JSON has them; arrays go to `arrays`, under names that begin so.

    Raises:
        InputError: a value is none of JSON's, and no array.
    """
    if value is None or isinstance(value, (bool, str)) or type(value) in (int, float):
        return value
    if isinstance(value, dict):
        if any(not isinstance(key, str) for key in value):
            raise InputError(f"The state {name} has keys that are no strings: {list(value)!r:.80}.")
        return {"dict": {k: pack(v, arrays, f"{name}/{k}") for k, v in value.items()}}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [pack(v, arrays, f"{name}/{i}") for i, v in enumerate(value)]}
    if isinstance(value, np.generic) or hasattr(value, "__array__"):
        array = np.asarray(value)
        if array.dtype.kind in "OSU":
            raise InputError(
                f"The state {name} is an array of {array.dtype}; a callback's get_state() gives "
                "arrays of numbers, and texts as strings and lists."
            )
        arrays[name] = array
        return {"scalar" if isinstance(value, np.generic) else "array": name}
    raise InputError(
        f"The state {name} is a {type(value).__name__}; a callback's get_state() gives numbers, "
        "strings, lists, dicts and arrays."
    )


def unpack(value, arrays) -> Any:
    """Gives what `pack` took; see there."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "dict":
        return {key: unpack(v, arrays) for key, v in content.items()}
    if kind in ("list", "tuple"):
        found = [unpack(v, arrays) for v in content]
        return found if kind == "list" else tuple(found)
    array = np.array(arrays[content])
    return array[()] if kind == "scalar" else array
