"""The record that every kind of task fills in, and what kinds share."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from llama_keras.errors import InputError
from llama_keras.eval.metrics import Metric
from llama_keras.tasks.recipe import Recipe


class Examples(Protocol):
    """One part of a data set: train, validation or test."""

    source: str

    def __len__(self) -> int: ...

    def head(self, count: int) -> "Examples":
        """Gives the first `count` examples."""
        ...


@dataclass(frozen=True)
class Measured:
    """What one part of a data set says of a task."""

    metrics: dict[str, Metric]
    """By name."""
    counts: dict[str, int] = field(default_factory=dict)
    """Of examples, by name: `n`, where fewer than all were measured, and what was left out."""


def _nothing_more(recipe: Recipe, part: Any, labels: list[str] | None) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class TaskKind:
    """What a recipe's `task` stands for."""

    noun: str
    """What the examples are called, such as "texts"."""
    load: Callable[[Recipe, str, str | None], Any]
    """From the recipe, a source and its split (for `tfds:`), one `Examples`."""
    labels: Callable[[Recipe, Mapping[str, Any]], list[str] | None]
    """All labels of the parts, checked against the recipe's; None where the task has none."""
    build: Callable[[Recipe, list[str] | None, Any], Any]
    """From the recipe, the labels and the strategy, the task."""
    examples: Callable[[Any], tuple[Sequence[Any], Sequence[Any] | None]]
    """From one `Examples`, what `fit` takes as x and y."""
    measure: Callable[[Any, Any], Measured]
    """From the task and one `Examples`, the metrics."""
    fit_arguments: Callable[[Recipe, Any, list[str] | None], dict[str, Any]] = _nothing_more
    """From the recipe, the training part and the labels, what else `fit` is given."""


def model_arguments(recipe: Recipe, strategy) -> dict[str, Any]:
    """Gives the arguments of `from_preset` that all kinds have in common."""
    # Without the argument the task cleans as the preset's model was taught.
    cleaning = {} if recipe.clean is None else {"cleaning": recipe.clean or None}
    mask = recipe.model.attention_mask
    return {
        **cleaning,
        "strategy": strategy,
        "dtype": recipe.model.dtype,
        "backbone_arguments": {
            **({} if mask is None else {"attention_mask": mask}),
            "rematerialize": recipe.model.rematerialize,
        },
        "max_sequence_length": recipe.model.max_sequence_length,
    }


def check_attention_mask(recipe: Recipe) -> None:
    """Raises `InputError` where the task cannot use the model with the attention mask it has."""
    from llama_keras.weights.presets import backbone_config, resolve

    mask = recipe.model.attention_mask
    if mask is None:
        mask = backbone_config(resolve(recipe.preset)).get("attention_mask", "causal")
    usable = ["causal"] if recipe.task == "causal_lm" else ["causal", "bidirectional"]
    if mask not in usable:
        raise InputError(
            f"A {recipe.task} recipe needs one of {usable}, and has attention_mask={mask!r} on "
            f"{recipe.preset}; set model.attention_mask."
        )


def no_labels(recipe: Recipe, parts: Mapping[str, Any]) -> None:
    """Raises `InputError` where a recipe names labels and its task has none."""
    if recipe.labels is not None:
        raise InputError(f"A {recipe.task} recipe has no labels; leave `labels` out.")


def check_labels(
    labels: list[str], parts: Mapping[str, Any], names_of: Callable[[Any], Iterable[str]], what: str
) -> None:
    """Raises `InputError` where a part of the data has a label that is not among `labels`.

    Args:
        labels: all that there are.
        parts: the parts by name.
        names_of: from a part, its labels.
        what: the part has, such as "the label".
    """
    for name, part in parts.items():
        unknown = sorted(set(names_of(part)) - set(labels))
        if unknown:
            raise InputError(
                f"The {name} data ({part.source}) has {what} {unknown[0]!r}, which is not among "
                f"{labels}."
            )
