"""What has to be the same in a run that is resumed: its data, its order, its optimizer."""

import dataclasses
import hashlib
import json
from typing import Any

import keras
import numpy as np

from llama_keras.errors import InputError

# Longer values are not shown in messages.
_SHOWN = 60


def plan_of(values: dict[str, Any], model) -> dict[str, Any]:
    """Gives what identifies a run as plain values, the settings of the optimizer among them.

    Args:
        values: plain values; data by `digest_of`.
        model: a compiled Keras model.
    """
    plain = {
        **values,
        "optimizer": _optimizer_settings(model.optimizer),
        "replicas": getattr(model, "num_replicas", 1),
        "gradient_accumulation_steps": getattr(model, "gradient_accumulation_steps", 1),
        "model": digest_of(json.dumps(_without_chance(_config_of(model)), default=str)),
    }
    return json.loads(json.dumps(plain, default=str, sort_keys=True))


def check_plan(there: dict[str, Any], here: dict[str, Any], *, folder) -> None:
    """Raises `InputError` where a run is not the one that left checkpoints in a folder."""
    changes = []
    for name in sorted({*there, *here}):
        old, new = there.get(name), here.get(name)
        if old != new:
            texts = [json.dumps(value) for value in (old, new)]
            is_short = max(map(len, texts)) <= _SHOWN and name != "data"
            changes.append(f"{name} was {texts[0]}, now {texts[1]}" if is_short else name)
    if changes:
        raise InputError(
            f"The checkpoints in '{folder}' are of another run, with a difference in: "
            f"{'; '.join(changes)}. Run it as it was, or give another folder for the checkpoints."
        )


def _config_of(model) -> Any:
    """Gives what a model is made of, dropout rates and precisions among it."""
    backbone = getattr(model, "backbone", None)
    if backbone is None:
        return {}
    policies = [str(layer.dtype_policy.name) for layer in backbone.transformer_layers]
    own = model.get_config()
    del own["tokenizer"]  # the data are its ids
    return {**own, "backbone": backbone.get_config(), "policies": policies}


def _optimizer_settings(optimizer) -> Any:
    try:
        config = keras.saving.serialize_keras_object(optimizer)
    except NotImplementedError:  # a schedule of one's own without get_config
        return type(optimizer).__name__
    return _without_chance(config)


def _without_chance(value):
    """Leaves out names, which depend on what else was built, and rates that callbacks change."""
    if isinstance(value, dict):
        return {
            key: _without_chance(part)
            for key, part in value.items()
            if key != "name" and not (key == "learning_rate" and not isinstance(part, dict))
        }
    return [_without_chance(part) for part in value] if isinstance(value, list) else value


def digest_of(data) -> str:
    """Gives the SHA-256 of data: dataclasses, tuples, arrays, and lists of rows of numbers."""
    sha = hashlib.sha256()
    _add(data, sha)
    return sha.hexdigest()


def _add(data, sha) -> None:
    if dataclasses.is_dataclass(data) and not isinstance(data, type):
        for field in dataclasses.fields(data):
            sha.update(field.name.encode())
            _add(getattr(data, field.name), sha)
    elif isinstance(data, np.ndarray):
        sha.update(f"{data.dtype}{data.shape}".encode())
        sha.update(np.ascontiguousarray(data).reshape(-1).view(np.uint8).data)
    elif isinstance(data, tuple):
        for part in data:
            _add(part, sha)
    elif isinstance(data, list):
        lengths = np.array([len(row) for row in data], "int64")
        _add(lengths, sha)
        if len(data):
            _add(np.concatenate([np.asarray(row, "int64") for row in data]), sha)
    else:
        sha.update(repr(data).encode())
