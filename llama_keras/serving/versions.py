"""Find the model versions to serve or ask in a folder laid out as TF Serving wants it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True)
class VersionPolicy:
    """Which of the versions in a folder are served; TF Serving's `model_version_policy`.

    Attributes:
        limit: so many of the newest; None has no limit.
        specific: these alone; empty means any.
    """

    limit: int | None = 1
    specific: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "VersionPolicy":
        """Gives the policy of `latest`, `latest:N`, `all` or `specific:1,2`.

        Raises:
            InputError: it is none of these.
        """
        kind, _, rest = text.partition(":")
        numbers = [number for number in rest.split(",") if number]
        if all(number.isdecimal() and number.isascii() for number in numbers):
            versions = tuple(map(int, numbers))
            if kind == "latest" and len(versions) <= 1 and 0 not in versions:
                return cls(limit=versions[0] if versions else 1)
            if kind == "all" and not rest:
                return cls(limit=None)
            if kind == "specific" and versions:
                return cls(limit=None, specific=versions)
        raise InputError(
            f"{text!r} is no version policy; write latest, latest:N, all or specific:1,2."
        )

    def order(self, versions: Mapping[int, Path]) -> list[int]:
        """Gives the versions that may be served, the newest first."""
        return sorted(
            (v for v in versions if not self.specific or v in self.specific), reverse=True
        )


@dataclass(frozen=True)
class ModelSource:
    """Where the versions of one model are.

    Attributes:
        name: the model's name in URLs.
        folder: that holds the numbered versions, or the one version itself.
        fixed: the one version that `folder` is; None: its sub-folders are the versions.
        policy: which of them are served.
        labels: label to version, as `--label` gives them.
    """

    name: str
    folder: Path
    fixed: int | None = None
    policy: VersionPolicy = VersionPolicy()
    labels: Mapping[str, int] = field(default_factory=dict)

    def found(self) -> dict[int, Path]:
        """Gives the versions that are there now, by number.

        Raises:
            OSError: the folder cannot be read; a folder that is away says nothing about versions.
        """
        if self.fixed is not None:
            return {self.fixed: self.folder}
        return {int(path.name): path for path in _versions(self.folder)}

    def nothing_found(self) -> str:
        """Gives the reason why nothing here is served, for people."""
        there = ", ".join(map(str, sorted(self.found()))) or "none"
        if self.policy.specific:
            wanted = ", ".join(map(str, self.policy.specific))
            return f"{self.folder} holds none of the versions {wanted}; it holds: {there}."
        return f"{self.folder} holds no version that can be served; it holds: {there}."


def parse_labels(texts: Sequence[str]) -> dict[str, int]:
    """Gives label to version from texts such as `stable=1` or `canary=2,stable=1`.

    Raises:
        InputError: a text is not of this form, or a label is named twice.
    """
    labels: dict[str, int] = {}
    for pair in [pair for text in texts for pair in text.split(",")]:
        label, _, version = pair.strip().partition("=")
        is_number = version.isdecimal() and version.isascii()
        if not label or set(label) & set("/:") or not is_number or label in labels:
            raise InputError(f"--label takes NAME=VERSION, each name once; got {pair!r}.")
        labels[label] = int(version)
    return labels


def find_source(
    directory: str | Path,
    *,
    name: str | None = None,
    policy: VersionPolicy | None = None,
    labels: Mapping[str, int] | None = None,
) -> ModelSource:
    """Return where a server finds the versions of a model.

    Args:
        directory: as `find_model` takes it. `NAME/VERSION/` is that version and no other.
        name: as there.
        policy: which versions are served, by default the newest.
        labels: label to version.

    Raises:
        InputError: nothing to serve there; the message says what is there and what to do.
    """
    path = _checked(directory, name)
    options: dict[str, Any] = {"policy": policy or VersionPolicy(), "labels": dict(labels or {})}
    if (path / SAVED_MODEL_FILE).is_file():
        one = _version_folder(path, name)
        return ModelSource(one.name, path, fixed=one.version, **options)
    if _versions(path):
        return ModelSource(name or path.name or "model", path, **options)
    if (path / "export").is_dir():
        base = _in_run(path / "export", name)
        return ModelSource(name or base.name, base, **options)
    raise InputError(_nothing_here(path))


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
    path = _checked(directory, name)
    if (path / SAVED_MODEL_FILE).is_file():
        return _version_folder(path, name)
    versions = _versions(path)
    if versions:
        return _newest(path, versions, name)
    if (path / "export").is_dir():
        base = _in_run(path / "export", name)
        return _newest(base, _versions(base), name)
    raise InputError(_nothing_here(path))


def _checked(directory: str | Path, name: str | None) -> Path:
    path = Path(os.path.abspath(Path(directory).expanduser()))
    if not path.exists():
        raise InputError(f"There is no model at {path}: the folder does not exist.")
    if not path.is_dir():
        raise InputError(f"{path} is a file; give the folder NAME/ or NAME/VERSION/ of an export.")
    if name is not None and (not name or set(name) & set("/:")):
        raise InputError(f"A model name cannot be empty or hold '/' or ':'; got {name!r}.")
    return path


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


def _in_run(export: Path, name: str | None) -> Path:
    models = sorted(child for child in export.iterdir() if child.is_dir() and _versions(child))
    names = [model.name for model in models]
    if not models:
        raise InputError(f"{export} holds no NAME/VERSION/ folder; {_how_to_export(export.parent)}")
    chosen = models if len(models) == 1 else [model for model in models if model.name == name]
    if not chosen:
        raise InputError(
            f"{export} holds several models ({', '.join(names)}); give the folder of one of them."
        )
    return chosen[0]


def _nothing_here(path: Path) -> str:
    if any((path / file).exists() for file in _RUN_FILES):
        return f"The run {path} has not been exported; {_how_to_export(path)}"
    inside = ", ".join(sorted(child.name for child in path.iterdir())[:8]) or "nothing"
    return (
        f"{path} holds neither {SAVED_MODEL_FILE} nor a numbered version folder (it holds "
        f"{inside}); give the folder NAME/ or NAME/VERSION/ that an export wrote."
    )


def _how_to_export(run: Path) -> str:
    return f"write one with: llama-keras export {run} --output {run}/export/{run.name}"
