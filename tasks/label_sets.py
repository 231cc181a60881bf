"""Labels as a classifier's targets, one a text or several, and the metrics of several.

Axes: N texts, B batch, C classes.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from llama_keras.errors import InputError

_EXPECTED = "a list of label names for each text (empty for none), or a {0, 1} matrix (N, C)"

_NUMERAL = re.compile(r"-?\d+")


def label_numbers(labels: Sequence[Any], *, names: Sequence[str]) -> np.ndarray:
    """Gives the class numbers of labels, int32 `(N,)`.

    Args:
        labels: N names, or integers: class numbers, as in Keras.
        names: the C classes.

    Raises:
        InputError: a label is not known; or it is an integer, and a name is another class's number.
    """
    numbers: dict[Any, int] = {name: number for number, name in enumerate(names)}
    integers = [x for x in labels if isinstance(x, (int, np.integer))]
    if integers and any(_NUMERAL.fullmatch(name) and int(name) != numbers[name] for name in names):
        raise InputError(
            f"The label {integers[0]!r} may be the number of a class, counted from 0, or one of "
            f"the names {list(names)}; write names as strings."
        )
    numbers |= {number: number for number in range(len(names))}
    found = [numbers.get(label) for label in labels]
    if wrong := {str(x) for x, number in zip(labels, found, strict=True) if number is None}:
        shown = ", ".join(sorted(wrong)[:5])
        raise InputError(f"Unknown label {shown}; the model knows {list(names)}.")
    return np.array(found, dtype="int32")


def class_weights(given: Mapping[Any, float] | str, *, names: Sequence[str], labels=None) -> dict:
    """Gives the weights of classes by their numbers.

    Args:
        given: weights by names or class numbers, or `"balanced"`.
        names: the C classes.
        labels: int32 `(N,)`, what `"balanced"` counts.

    Raises:
        InputError: a class is not known, see `label_numbers`; or there is nothing to count.
    """
    if not isinstance(given, Mapping):
        if given != "balanced" or labels is None:
            raise InputError(
                f"class_weight={given!r}; expected weights by label, {{label: weight}}, or "
                '"balanced" for raw examples.'
            )
        counts = np.bincount(labels, minlength=len(names))
        # As scikit-learn's; a label without examples has no weight to give.
        return dict(enumerate((len(labels) / (len(names) * np.maximum(counts, 1))).tolist()))
    numbers = label_numbers(list(given), names=names).tolist()
    if len(set(numbers)) < len(numbers):
        raise InputError(f"class_weight has a class twice, by name and number: {given}.")
    return dict(zip(numbers, given.values(), strict=True))


def label_matrix(labels: Sequence[Any], *, names: Sequence[str]) -> np.ndarray:
    """Gives the labels of texts as 0 and 1.

    Args:
        labels: for each of N texts its label names, possibly none; or a row of C numbers, 0 or 1.
            Numbers are always read as such a row, never as numbers of classes.
        names: the C classes.

    Returns:
        int32 `(N, C)`.

    Raises:
        InputError: a row is neither; the message names it.
    """
    numbers = {name: number for number, name in enumerate(names)}
    matrix = np.zeros((len(labels), len(names)), "int32")
    for index, row in enumerate(labels):
        if not isinstance(row, (list, tuple, set, frozenset, np.ndarray)):
            raise InputError(f"The labels of text {index} are {row!r}; expected {_EXPECTED}.")
        items = [item.decode() if isinstance(item, bytes) else item for item in row]
        if items and not any(isinstance(item, str) for item in items):
            matrix[index] = _zeros_and_ones(items, index, len(names))
            continue
        for item in items:
            if item not in numbers:
                raise InputError(
                    f"Unknown label {item!r} of text {index}; the model knows {list(names)}."
                )
            matrix[index, numbers[item]] = 1
    return matrix


def _zeros_and_ones(row: list[Any], index: int, count: int) -> list[int]:
    if len(row) != count or any(item not in (0, 1) for item in row):
        raise InputError(
            f"The labels of text {index} are {row}; numbers must be a row of {count} zeros and "
            f"ones, one for each label. Expected {_EXPECTED}."
        )
    return [int(item) for item in row]


@keras.saving.register_keras_serializable(package="llama_keras")
def subset_accuracy(y_true, y_pred, threshold: float = 0.5):
    """Gives 1 for each text whose labels are all right, else 0: float32 `(B,)`.

    Args:
        y_true: 0 and 1, `(B, C)`.
        y_pred: logits `(B, C)`.
        threshold: probability above which a label is given.
    """
    chosen = ops.sigmoid(ops.cast(y_pred, "float32")) > threshold
    is_right = ops.equal(chosen, ops.cast(y_true, "bool"))
    return ops.cast(ops.all(is_right, axis=-1), "float32")


@keras.saving.register_keras_serializable(package="llama_keras")
class LogitF1(keras.metrics.F1Score):
    """Keras's F1 score of logits `(B, C)` in place of probabilities."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Counts a batch."""
        return super().update_state(y_true, ops.sigmoid(y_pred), sample_weight)


def label_set_metrics(threshold: float) -> list:
    """Gives the Keras metrics of training: subset accuracy and micro-averaged F1."""
    return [
        keras.metrics.MeanMetricWrapper(
            subset_accuracy, name="subset_accuracy", threshold=threshold
        ),
        LogitF1(average="micro", threshold=threshold, name="micro_f1"),
    ]
