"""Carry out a recipe: data, model, fit, evaluation, export, in a run directory.

This is the one place that knows all rooms of the house; the command line and the demo call it.
"""

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_keras.errors import InputError
from llama_keras.kinds import TaskKind, get_kind
from llama_keras.kinds.kind import check_attention_mask
from llama_keras.run_folder import RunFolder, run_folder
from llama_keras.tasks.recipe import Recipe

MODEL_FILE = "model.keras"


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


def run_recipe(
    recipe: Recipe,
    *,
    output,
    resume: bool = False,
    distribution=None,
    say: Callable[[str], None] = print,
) -> Run:
    """Trains, measures, saves and, if the recipe says so, exports.

    Args:
        recipe: what to do.
        output: a new directory.
        resume: whether the directory may hold an interrupted run of the recipe, which then goes on
            to the results that it would have had; a finished one is left as it is.
        distribution: a `tf.distribute.Strategy`, see `training.strategies`.
        say: gets a line of text at each stage.

    Raises:
        InputError: the directory holds something else, or the data do not fit the recipe.
    """
    from llama_keras.training.placement import Placement

    placement = Placement.of(distribution)
    with run_folder(output, recipe, resume=resume, is_chief=placement.is_chief) as folder:
        if folder.is_finished:
            return _finished(recipe, folder, say)
        return _carry_out(recipe, folder, placement, say)


def _finished(recipe: Recipe, folder: RunFolder, say) -> Run:
    from llama_keras.tasks.task import Task

    say(f"{folder.path} holds the finished run already")
    exports = sorted((folder.path / "export" / recipe.name).glob("*"))
    export = exports[-1] if exports else None
    return Run(folder.path, folder.metrics, export, Task.load(folder.path / MODEL_FILE))


def _carry_out(recipe: Recipe, folder: RunFolder, placement, say) -> Run:
    import keras

    from llama_keras.training.fine_tuning import get_strategy, trainable_share
    from llama_keras.training.throughput import Throughput

    directory = folder.written
    kind = get_kind(recipe.task)
    parts = _load_parts(recipe, kind)
    labels = kind.labels(recipe, parts)
    check_attention_mask(recipe)
    keras.utils.set_random_seed(recipe.train.seed)
    callbacks = _callbacks(recipe, directory, validation="validation" in parts)
    speed = Throughput(directory / "logs" / "throughput")
    strategy = get_strategy(recipe.strategy)
    if recipe.train.learning_rate is not None:
        strategy = dataclasses.replace(strategy, learning_rate=recipe.train.learning_rate)
    say(f"loading {recipe.preset}")
    with placement.scope():
        model = kind.build(recipe, labels, strategy)
        model.strategy.prepare(model)
    model.compile_settings = compile_settings(recipe.train)
    folder.begin(recipe.model_copy(update={"labels": labels}))
    sizes = ", ".join(f"{len(part)} {name}" for name, part in parts.items())
    say(f"{strategy.name} on {sizes} {kind.noun}; {trainable_share(model)}")
    before = None
    if recipe.measure_before:
        before = folder.measured_before(lambda: _measure(model, kind, parts))
    validation = parts.get("validation")
    checkpoints = folder.checkpoints(
        recipe.train, workers=placement.workers, validation=validation is not None
    )
    if names := checkpoints.names():
        say(f"going on from the checkpoint {names[-1]}")
    history = model.fit(
        *kind.examples(parts["train"]),
        validation_data=kind.examples(validation) if validation else None,
        epochs=recipe.train.epochs,
        batch_size=recipe.train.batch_size,
        seed=recipe.train.seed,
        callbacks=[*callbacks, speed],
        **({"packing": True} if recipe.train.packing else {}),
        checkpoints=checkpoints,
        **kind.fit_arguments(recipe, parts["train"], labels),
        verbose=placement.verbosity(is_terminal=sys.stderr.isatty()),
    )
    say(speed.summary())
    model.save(directory / MODEL_FILE)
    metrics = {"recipe": recipe.name, "strategy": recipe.strategy["name"]}
    metrics |= _measure(model, kind, parts)
    if before is not None:
        metrics["before"] = before
    metrics["history"] = _plain(history.history)
    metrics["throughput"] = speed.results()
    shutil.rmtree(directory / "export", ignore_errors=True)  # of a run killed after it
    export = model.export(directory / "export" / recipe.name) if recipe.export else None
    folder.finish(metrics, keep_checkpoints=recipe.train.keep_checkpoints)
    placement.wait()
    return Run(folder.path, metrics, export, model)


def compile_settings(train) -> dict[str, Any]:
    """Gives what `compile` takes of a recipe's `train`, where it is not what tasks do anyway."""
    settings = {}
    if train.gradient_accumulation_steps > 1:
        settings["gradient_accumulation_steps"] = train.gradient_accumulation_steps
    if train.jit_compile:
        settings["jit_compile"] = True
    return settings


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
        metrics = found.metrics.items()
        result[name] = {
            **{key: metric.value for key, metric in metrics},
            **{"n": len(parts[name]), **found.counts},
            "intervals": {key: [metric.low, metric.high] for key, metric in metrics},
        }
    return result


def _plain(history: dict) -> dict:
    return json.loads(json.dumps(history, default=float))
