"""Carry out a recipe: data, model, fit, evaluation, export, in a run directory.

This is the one place that knows all rooms of the house; the command line and the demo call it.
"""

import dataclasses
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llama_keras.atomic import write_text
from llama_keras.errors import InputError
from llama_keras.kinds import TaskKind, get_kind
from llama_keras.tasks.recipe import Recipe

METRICS_FILE = "metrics.json"
MODEL_FILE = "model.keras"
RECIPE_FILE = "recipe.yaml"


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        directory: holds recipe.yaml, model.keras, metrics.json, logs/ and, if asked for, export/.
        metrics: what metrics.json holds.
        export: the SavedModel's folder, if one was written.
        model: the task, as trained.
    """

    directory: Path
    metrics: dict[str, Any]
    export: Path | None
    model: Any


def run_recipe(recipe: Recipe, *, output, say: Callable[[str], None] = print) -> Run:
    """Trains, measures, saves and, if the recipe says so, exports.

    Args:
        recipe: what to do.
        output: a new directory.
        say: gets a line of text at each stage.

    Raises:
        InputError: the directory holds something, or the data do not fit the recipe.
    """
    import keras

    from llama_keras.training.fine_tuning import get_strategy, trainable_share

    directory = _new_directory(Path(output))
    kind = get_kind(recipe.task)
    parts = _load_parts(recipe, kind)
    labels = kind.labels(recipe, parts)
    keras.utils.set_random_seed(recipe.train.seed)
    callbacks = _callbacks(recipe, directory, validation="validation" in parts)
    strategy = get_strategy(recipe.strategy)
    if recipe.train.learning_rate is not None:
        strategy = dataclasses.replace(strategy, learning_rate=recipe.train.learning_rate)
    say(f"loading {recipe.preset}")
    model = kind.build(recipe, labels, strategy)
    directory.mkdir(parents=True, exist_ok=True)
    resolved = recipe.model_copy(update={"labels": labels})
    write_text(directory / RECIPE_FILE, yaml.safe_dump(resolved.model_dump(), sort_keys=False))
    model.strategy.prepare(model)
    sizes = ", ".join(f"{len(part)} {name}" for name, part in parts.items())
    say(f"{strategy.name} on {sizes} {kind.noun}; {trainable_share(model)}")
    before = _measure(model, kind, parts) if recipe.measure_before else None
    validation = parts.get("validation")
    history = model.fit(
        *kind.examples(parts["train"]),
        validation_data=kind.examples(validation) if validation else None,
        epochs=recipe.train.epochs,
        batch_size=recipe.train.batch_size,
        seed=recipe.train.seed,
        callbacks=callbacks,
        **kind.fit_arguments(recipe, parts["train"], labels),
        verbose=1 if sys.stderr.isatty() else 2,
    )
    model.save(directory / MODEL_FILE)
    metrics = {"recipe": recipe.name, "strategy": recipe.strategy["name"]}
    metrics |= _measure(model, kind, parts)
    if before is not None:
        metrics["before"] = before
    metrics["history"] = _plain(history.history)
    export = model.export(directory / "export" / recipe.name) if recipe.export else None
    write_text(directory / METRICS_FILE, json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")
    return Run(directory, metrics, export, model)


def _callbacks(recipe: Recipe, directory: Path, *, validation: bool) -> list:
    import keras

    callbacks: list = [keras.callbacks.TensorBoard(str(directory / "logs"), write_graph=False)]
    if recipe.train.early_stopping is not None:
        if not validation:
            raise InputError("train.early_stopping needs validation data; set data.validation.")
        callbacks.append(
            keras.callbacks.EarlyStopping(
                patience=recipe.train.early_stopping, restore_best_weights=True
            )
        )
    return callbacks


def _new_directory(directory: Path) -> Path:
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        unfinished = directory.is_dir() and not (directory / METRICS_FILE).exists()
        state = "an unfinished run" if unfinished else "something"
        raise InputError(
            f"'{directory}' holds {state} already; choose another --output, or remove it first."
        )
    return directory


def _load_parts(recipe: Recipe, kind: TaskKind) -> dict[str, Any]:
    sources = {name: getattr(recipe.data, name) for name in ("train", "validation", "test")}
    if sources["train"] is None:
        raise InputError(
            f"Recipe {recipe.name} has no training data; add --set data.train=FILE (or "
            "tfds:NAME/SPLIT)."
        )
    return {name: _load_part(recipe, kind, source) for name, source in sources.items() if source}


def _load_part(recipe: Recipe, kind: TaskKind, source: str) -> Any:
    split = None
    if source.startswith("tfds:"):
        source, _, split = source.rpartition("/")
        if not source:
            raise InputError(f"Write tfds:NAME/SPLIT, such as tfds:glue/sst2/train, not '{split}'.")
    part = kind.load(recipe, source, split)
    return part if recipe.data.limit is None else part.head(recipe.data.limit)


def _measure(model, kind: TaskKind, parts) -> dict[str, Any]:
    """Gives the metrics of the validation and the test part, where they are there."""
    result: dict[str, Any] = {}
    for name in ("validation", "test"):
        if name not in parts:
            continue
        found = kind.measure(model, parts[name])
        result[name] = {key: metric.value for key, metric in found.items()}
        result[name]["n"] = len(parts[name])
        result[name]["intervals"] = {
            key: [metric.low, metric.high] for key, metric in found.items()
        }
    return result


def _plain(history: dict) -> dict:
    return json.loads(json.dumps(history, default=float))
