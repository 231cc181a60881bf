"""What a classifier with several labels a text needs: targets, the loss's and metrics' views.

Axes: N texts, B batch, C classes.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from llama_keras.errors import InputError

_EXPECTED = "a list of label names for each text (empty for none), or a {0, 1} matrix (N, C)"


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
