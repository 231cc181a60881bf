"""Carry out a pretraining recipe: text, model, fit, and a preset to fine-tune from."""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_keras.errors import InputError
from llama_keras.run_folder import RunFolder, run_folder
from llama_keras.tasks.pretraining_recipe import PretrainingRecipe
from llama_keras.weights.presets import PRESET_FILE

LOG_FILE = "metrics.jsonl"
MODEL_FILE = "model.keras"
# Layout of the objective -> name of the task whose `predict` suits it.
_TASKS = {"corrupted": "MaskedLM", "prefix": "Denoiser"}


@dataclass(frozen=True)
class PretrainingRun:
    """A finished run.

    Attributes:
        directory: a preset, besides recipe.yaml, metrics.jsonl, metrics.json and model.keras.
        metrics: what metrics.json holds: `before` and `after` on the validation data, `history`.
        model: the task, as trained.
    """

    directory: Path
    metrics: dict[str, Any]
    model: Any


def run_pretraining(
    recipe: PretrainingRecipe,
    *,
    output,
    resume: bool = False,
    distribution=None,
    say: Callable[[str], None] = print,
) -> PretrainingRun:
    """Trains by an objective and leaves a preset.

    Args:
        recipe: what to do.
        output: a new directory.
        resume, distribution: see `runner.run_recipe`.
        say: gets a line of text at each stage.

    Raises:
        InputError: the directory holds something else, or the data do not fit the recipe.
    """
    from llama_keras.training.placement import Placement

    placement = Placement.of(distribution)
    with run_folder(output, recipe, resume=resume, is_chief=placement.is_chief) as folder:
        if folder.is_finished:
            from llama_keras.tasks import Pretraining

            say(f"{folder.path} holds the finished run already")
            model = Pretraining.load(folder.path / MODEL_FILE)
            return PretrainingRun(folder.path, folder.metrics, model)
        return _carry_out(recipe, folder, placement, say)


def _carry_out(recipe: PretrainingRecipe, folder: RunFolder, placement, say) -> PretrainingRun:
    import keras

    from llama_keras.data.corrupted import check_packing
    from llama_keras.runner import compile_settings
    from llama_keras.training.metrics_log import MetricsLog
    from llama_keras.training.throughput import Throughput

    directory = folder.written
    parts = _load_parts(recipe, say)
    keras.utils.set_random_seed(recipe.train.seed)
    with placement.scope():
        model = build_model(recipe)
    if recipe.train.packing:
        check_packing(model.objective.layout)
    rate = {"learning_rate": recipe.train.learning_rate}
    model.compile_settings = {**rate, **compile_settings(recipe.train)}
    model.compile_by_default()  # tells what does not go together
    folder.begin(recipe)
    say(f"{model.objective.name} on {model.backbone.count_params():,} weights")
    texts = {name: part.texts for name, part in parts.items()}
    options = {"batch_size": recipe.train.batch_size, "verbose": 0}
    measured = "validation" if "validation" in texts else "train"
    speed = Throughput(directory / "logs")
    metrics: dict[str, Any] = {"recipe": recipe.name, "measured_on": measured}
    metrics["before"] = folder.measured_before(lambda: model.evaluate(texts[measured], **options))
    checkpoints = folder.checkpoints(
        recipe.train, workers=placement.workers, validation="validation" in texts
    )
    if names := checkpoints.names():
        say(f"going on from the checkpoint {names[-1]}")
    history = model.fit(
        texts["train"],
        validation_data=texts.get("validation"),
        epochs=recipe.train.epochs,
        batch_size=recipe.train.batch_size,
        seed=recipe.train.seed,
        callbacks=[MetricsLog(directory / LOG_FILE), speed],
        packing=recipe.train.packing,
        checkpoints=checkpoints,
        verbose=placement.verbosity(is_terminal=sys.stderr.isatty()),
    )
    metrics["after"] = model.evaluate(texts[measured], **options)
    say(speed.summary())
    metrics["history"] = history.history
    metrics["throughput"] = speed.results()
    model.save(directory / MODEL_FILE)
    _save_preset(model, directory, recipe.preset_attention_mask)
    plain = json.loads(json.dumps(metrics, default=float))
    folder.finish(plain, keep_checkpoints=recipe.train.keep_checkpoints)
    placement.wait()
    return PretrainingRun(folder.path, plain, model)


def _load_parts(recipe: PretrainingRecipe, say) -> dict[str, Any]:
    from llama_keras.data.documents import load_documents

    parts: dict[str, Any] = {}
    for name in ("train", "validation"):
        if sources := getattr(recipe.data, name):
            parts[name] = load_documents(
                sources,
                text_column=recipe.data.text_column,
                label_column=recipe.data.label_column,
                limit=recipe.data.limit,
            )
            say(f"{name}: {len(parts[name])} documents, {parts[name].blank} blank lines left out")
    if "train" not in parts:
        raise InputError(
            f"Recipe {recipe.name} has no text; add --set data.train=FILE.txt, one document a line."
        )
    return parts


def build_model(recipe: PretrainingRecipe):
    """Gives the untrained task of a recipe: random weights, or those of its preset."""
    from llama_keras import tasks
    from llama_keras.models import LlamaBackbone
    from llama_keras.objectives import get_objective

    objective = get_objective(recipe.objective)
    task = getattr(tasks, _TASKS.get(objective.layout, "Pretraining"))
    arguments = {
        "objective": objective,
        "corruption": recipe.corruption,
        "max_sequence_length": recipe.max_sequence_length,
        "long_texts": recipe.long_texts,
    }
    if recipe.clean is not None:  # else the preset's
        arguments["cleaning"] = recipe.clean or None
    if recipe.preset is not None:
        return task.from_preset(
            recipe.preset, dtype=recipe.dtype, backbone_arguments=recipe.backbone, **arguments
        )
    tokenizer = build_tokenizer(recipe)
    sizes = {"attention_mask": objective.attention_masks[0], **recipe.backbone}
    sizes.setdefault("vocabulary_size", tokenizer.vocabulary_size)
    try:
        backbone = LlamaBackbone(dtype=recipe.dtype, **sizes)
    except (InputError, TypeError) as error:
        raise InputError(f"Recipe {recipe.name}, backbone: {error}") from None
    return task(backbone=backbone, tokenizer=tokenizer, **arguments)


def build_tokenizer(recipe: PretrainingRecipe):
    """Gives the `text.Tokenizer` of a recipe: its preset's, or that of a model from scratch."""
    from llama_keras.tasks.mask_tokens import MASK_TEXT, SEPARATOR_TEXT
    from llama_keras.text import Tokenizer
    from llama_keras.text.smaller import smaller_spec

    tokenizer = Tokenizer.from_preset(recipe.preset or recipe.tokenizer.preset)
    if recipe.preset is not None or recipe.tokenizer.vocabulary_size is None:
        return tokenizer
    new = [t for t in (MASK_TEXT, SEPARATOR_TEXT) if t not in tokenizer.special_tokens]
    return Tokenizer(
        smaller_spec(
            tokenizer.spec,
            vocabulary_size=recipe.tokenizer.vocabulary_size,
            special_tokens=new,
        )
    )


def _save_preset(model, directory: Path, attention_mask: str | None) -> None:
    """Makes the run's directory a preset; the file that marks it as one comes last."""
    if not model.writes_files():
        return
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        whole = Path(folder) / "preset"
        model.save_to_preset(whole, attention_mask=attention_mask)
        for file in sorted(whole.iterdir(), key=lambda file: file.name == PRESET_FILE):
            os.replace(file, directory / file.name)
