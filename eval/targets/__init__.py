"""Targets: what an evaluation can measure, all of them `requests.Target`."""

import importlib
from pathlib import Path
from typing import Any

from llama_keras.errors import InputError
from llama_keras.eval.requests import Target

# What begins a URL -> module here and the class that takes the URL.
_SCHEMES = {
    "http://": ("rest", "RestTarget"),
    "https://": ("rest", "RestTarget"),
    "grpc://": ("grpc", "GrpcTarget"),
    "openai:": ("openai", "OpenAiTarget"),
}


def open_target(model: str | Path | Target, **settings: Any) -> Target:
    """Returns the target for a model by its place.

    Args:
        model: A run directory or `.keras` file; the folder of an export; a server's URL; or a
            checkpoint to prompt: a preset's name or directory, or a `.gguf` file. For servers see
            `rest.RestTarget`, `grpc.GrpcTarget`, `openai.OpenAiTarget`. Behind an export or a
            model's URL `#NAME` asks one of several heads.
        **settings: Of the target: `dtype`, for checkpoints; `retries`, `timeout`, for servers;
            `signature`, the same as `#NAME`.

    Raises:
        InputError: There is nothing of these at `model`, or it takes no such setting.
    """
    if not isinstance(model, str | Path):
        return model
    name, head = _head_of(str(model))
    if head is not None:
        if settings.get("signature", head) != head:
            raise InputError(f"{model} names {head!r}; leave {settings['signature']!r} out.")
        settings, model = {**settings, "signature": head}, name
    for scheme, place in _SCHEMES.items():
        if name.startswith(scheme):
            return _made(place, name, settings)
    path = Path(model).expanduser()
    file = path / "model.keras" if path.is_dir() else path
    if file.suffix == ".keras" and file.is_file():
        return _made(("task", "TaskTarget"), file, settings)
    if path.is_dir() and _is_export(path):
        return _made(("saved_model", "SavedModelTarget"), path, settings)
    return _made(("task", "CheckpointTarget"), name, settings)


def _head_of(name: str) -> tuple[str, str | None]:
    """Gives what stands before and behind the last `#`; a path may have one of its own."""
    place, sign, head = name.rpartition("#")
    if not sign or "/" in head or Path(name).expanduser().exists():
        return name, None
    if not place or not head:
        raise InputError(f"{name!r}: what stands behind '#' is the name of a head or a signature.")
    return place, head


def _made(place: tuple[str, str], where: str | Path, settings: dict[str, Any]) -> Target:
    module, name = place
    kind = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    unknown = sorted(settings.keys() - set(getattr(kind, "settings", ())))
    if unknown:
        raise InputError(f"{where}: a {kind.kind} target takes no setting {unknown[0]!r}.")
    return kind(where, **settings)


def _is_export(folder: Path) -> bool:
    """Whether a SavedModel, or versions of one, lie there."""
    own = (folder / "saved_model.pb").is_file()
    return own or any(entry.name.isdigit() and entry.is_dir() for entry in folder.iterdir())
