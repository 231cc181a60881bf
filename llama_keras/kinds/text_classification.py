"""Recipes with `task: text_classification`."""

from collections.abc import Mapping
from typing import Any

from llama_keras.data import ClassificationData, load_classification
from llama_keras.errors import InputError
from llama_keras.kinds.kind import Measured, TaskKind, check_labels, model_arguments
from llama_keras.tasks.recipe import Recipe


def _load(recipe: Recipe, source: str, split: str | None) -> ClassificationData:
    return load_classification(
        source,
        split=split,
        text_column=recipe.data.text_column,
        label_column=recipe.data.label_column,
        names_column=recipe.data.names_column,
        pairs=recipe.model.pairs,
        multi_label=recipe.model.multi_label,
        data_dir=recipe.data.data_dir,
    )


def _labels(recipe: Recipe, parts: Mapping[str, ClassificationData]) -> list[str]:
    if recipe.model.multi_label and recipe.train.class_weights is not None:
        raise InputError("train.class_weights are for one label a text; leave them out.")
    labels = recipe.labels or parts["train"].label_names
    check_labels(labels, parts, lambda part: part.label_names, "the label")
    return labels


def _build(recipe: Recipe, labels, strategy):
    from llama_keras.tasks import TextClassifier

    return TextClassifier.from_preset(
        recipe.preset,
        labels=labels,
        pairs=recipe.model.pairs,
        multi_label=recipe.model.multi_label,
        threshold=recipe.model.threshold,
        pooling=recipe.model.pooling,
        dropout=recipe.model.dropout,
        label_smoothing=recipe.train.label_smoothing,
        **model_arguments(recipe, strategy),
    )


def _fit_arguments(recipe: Recipe, part: ClassificationData, labels) -> dict[str, Any]:
    weights = recipe.train.class_weights
    return {} if weights is None else {"class_weight": weights}


def _measure(model, part: ClassificationData) -> Measured:
    from llama_keras.eval.label_set_metrics import label_set_metrics
    from llama_keras.eval.metrics import compute_metrics

    answers = model.predict(part.texts, verbose=0)
    if model.multi_label:
        sets = [answer["labels"] for answer in answers]
        return Measured(label_set_metrics(part.labels, sets, labels=model.labels))
    found = [answer["label"] for answer in answers]
    return Measured(compute_metrics(part.labels, found, labels=model.labels))


KIND = TaskKind(
    noun="texts",
    load=_load,
    labels=_labels,
    build=_build,
    examples=lambda part: (part.texts, part.labels),
    measure=_measure,
    fit_arguments=_fit_arguments,
)
