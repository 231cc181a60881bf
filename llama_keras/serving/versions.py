"""Find the model version to serve or ask in a folder laid out as TF Serving wants it."""

import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .signature_def import SAVED_MODEL_FILE

_RUN_FILES = ("recipe.yaml", "model.keras", "metrics.json")


@dataclass(frozen=True)
class ModelFolder:
    """One version of one model on disk.

    Attributes:
        name: the model's name in URLs.
        version: its number (0 when the folder has no number).
        path: the folder with `saved_model.pb`.
    """

    name: str
    version: int
    path: Path


def find_model(directory: str | Path, *, name: str | None = None) -> ModelFolder:
    """Return the newest version found at a path.

    Args:
        directory: `NAME/` (with numbered versions; the highest wins), `NAME/VERSION/`, a folder
            with `saved_model.pb` in it, or a run directory that holds `export/NAME/VERSION/`.
        name: the model's name in URLs; by default the folder's name. In a run directory with
            several exports it also chooses the export.

    Raises:
        InputError: nothing to serve there; the message says what is there and what to do.
    """
    path = Path(os.path.abspath(Path(directory).expanduser()))
    if not path.exists():
        raise InputError(f"There is no model at {path}: the folder does not exist.")
    if not path.is_dir():
        raise InputError(f"{path} is a file; give the folder NAME/ or NAME/VERSION/ of an export.")
    if name is not None and (not name or set(name) & set("/:")):
        raise InputError(f"A model name cannot be empty or hold '/' or ':'; got {name!r}.")
    if (path / SAVED_MODEL_FILE).is_file():
        return _version_folder(path, name)
    versions = _versions(path)
    if versions:
        return _newest(path, versions, name)
    if (path / "export").is_dir():
        return _in_run(path / "export", name)
    raise InputError(_nothing_here(path))


def _version_folder(path: Path, name: str | None) -> ModelFolder:
    if path.name.isdecimal():
        return ModelFolder(name or path.parent.name or "model", int(path.name), path)
    return ModelFolder(name or path.name or "model", 0, path)


def _versions(path: Path) -> list[Path]:
    found = [child for child in path.iterdir() if child.name.isdecimal() and child.is_dir()]
    return sorted(found, key=lambda child: int(child.name))


def _newest(path: Path, versions: list[Path], name: str | None) -> ModelFolder:
    newest = versions[-1]
    if not (newest / SAVED_MODEL_FILE).is_file():
        raise InputError(
            f"{newest} holds no {SAVED_MODEL_FILE}, so version {newest.name} cannot be served; "
            "export it again or remove the folder."
        )
    return ModelFolder(name or path.name or "model", int(newest.name), newest)


def _in_run(export: Path, name: str | None) -> ModelFolder:
    models = sorted(child for child in export.iterdir() if child.is_dir() and _versions(child))
    names = [model.name for model in models]
    if not models:
        raise InputError(f"{export} holds no NAME/VERSION/ folder; {_how_to_export(export.parent)}")
    chosen = models if len(models) == 1 else [model for model in models if model.name == name]
    if not chosen:
        raise InputError(
            f"{export} holds several models ({', '.join(names)}); give the folder of one of them."
        )
    return _newest(chosen[0], _versions(chosen[0]), name)


def _nothing_here(path: Path) -> str:
    if any((path / file).exists() for file in _RUN_FILES):
        return f"The run {path} has not been exported; {_how_to_export(path)}"
    inside = ", ".join(sorted(child.name for child in path.iterdir())[:8]) or "nothing"
    return (
        f"{path} holds neither {SAVED_MODEL_FILE} nor a numbered version folder (it holds "
        f"{inside}); give the folder NAME/ or NAME/VERSION/ that an export wrote."
    )


def _how_to_export(run: Path) -> str:
    return f"write one with: llama-keras export {run}"
