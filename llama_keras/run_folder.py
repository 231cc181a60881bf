"""The folder of a run: new, gone on with, or finished; what of it a killed run leaves behind."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from llama_keras.atomic import write_text
from llama_keras.errors import InputError
from llama_keras.records import Record

METRICS_FILE = "metrics.json"
RECIPE_FILE = "recipe.yaml"
CHECKPOINTS = "checkpoints"
BEFORE_FILE = "before.json"
# Fields of a recipe that change nothing of what is learned.
_FREE = {"description", "export", "train.keep_checkpoints"}
_FREE |= {"train.checkpoint_every", "train.checkpoint_minutes"}
# Steps between checkpoints of several workers, which have no common clock.
_STEPS_OF_WORKERS = 200


@dataclass(frozen=True)
class RunFolder:
    """Where a run reads and writes."""

    path: Path
    """The run's directory."""
    written: Path
    """Where this process writes: the directory, or, for workers that are not the chief, one that
    is thrown away."""

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        return (self.path / METRICS_FILE).exists()

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of a finished run."""
        return json.loads((self.path / METRICS_FILE).read_text(encoding="utf-8"))

    def begin(self, recipe: Record) -> None:
        """Makes the directory, and notes the recipe in it."""
        self.written.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(recipe.model_dump(), sort_keys=False)
        write_text(self.written / RECIPE_FILE, text)

    def checkpoints(self, settings, *, workers: int, validation: bool):
        """Gives the run's `training.Checkpoints`.

        Args:
            settings: the recipe's `train`.
            workers: processes that train together.
            validation: whether there is a validation loss, by which the best is kept.
        """
        from llama_keras.training.checkpoints import Checkpoints

        every = settings.checkpoint_every
        return Checkpoints(
            folder=self.path / CHECKPOINTS,
            every=_STEPS_OF_WORKERS if every is None and workers > 1 else every,
            minutes=settings.checkpoint_minutes,
            best="val_loss" if settings.keep_checkpoints and validation else None,
        )

    def measured_before(self, measure: Callable[[], Any]) -> Any:
        """Gives what was measured before training, by an interrupted run or now."""
        name = f"{CHECKPOINTS}/{BEFORE_FILE}"
        if (self.path / name).exists():
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        found = json.loads(json.dumps(measure(), default=float))
        (self.written / name).parent.mkdir(exist_ok=True)
        write_text(self.written / name, json.dumps(found))
        return found

    def finish(self, metrics: dict[str, Any], *, keep_checkpoints: bool) -> None:
        """Writes the metrics, which ends the run, and removes what only a resumed one needs."""
        text = json.dumps(metrics, indent=2, ensure_ascii=False)
        write_text(self.written / METRICS_FILE, text + "\n")
        if not keep_checkpoints:
            shutil.rmtree(self.written / CHECKPOINTS, ignore_errors=True)


@contextlib.contextmanager
def run_folder(
    output, recipe: Record, *, resume: bool = False, is_chief: bool = True
) -> Iterator[RunFolder]:
    """Gives the folder of a run, to go on with where it holds a part of the same one.

    Args:
        output: the run's directory.
        recipe: the run's.
        resume: whether an interrupted run may be gone on with.
        is_chief: whether this process writes into it.

    Raises:
        InputError: the directory holds something else, or a run without `resume`.
    """
    path = Path(output)
    if is_chief:
        _check(path, recipe, resume=resume)
        yield RunFolder(path, path)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield RunFolder(path, Path(folder) / "run")


def _check(path: Path, recipe: Record, *, resume: bool) -> None:
    if not path.exists():
        return
    # What a kill leaves of a file that was being written begins with a dot.
    if path.is_dir() and all(file.name.startswith(".") for file in path.iterdir()):
        return
    is_run = (path / RECIPE_FILE).exists()
    if is_run and resume:
        _check_recipe(path / RECIPE_FILE, recipe)
        return
    what, remedy = "something", ""
    if is_run:
        is_finished = (path / METRICS_FILE).exists()
        what = "a finished run" if is_finished else "an unfinished run"
        remedy = "" if is_finished else "go on with it by --resume, "
    raise InputError(
        f"'{path}' holds {what} already; {remedy}choose another --output, or remove it first."
    )


def _check_recipe(file: Path, recipe: Record) -> None:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        there = _flat(type(recipe).model_validate(content).model_dump())
    except (OSError, ValueError, yaml.YAMLError, ValidationError) as error:
        raise InputError(
            f"The recipe {file} of the run to resume cannot be read: {error}"
        ) from None
    here = _flat(recipe.model_dump())
    if here.get("labels", 0) is None:  # found in the data again
        there["labels"] = None
    changes = [
        f"{name} was {there.get(name)!r:.60}, now {here.get(name)!r:.60}"
        for name in sorted({*there, *here} - _FREE)
        if there.get(name) != here.get(name)
    ]
    if changes:
        raise InputError(
            f"'{file.parent}' holds a run of another recipe: {'; '.join(changes)}. Resume it with "
            f"the recipe that it began with ({file}), or choose another --output."
        )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Gives nested fields by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
