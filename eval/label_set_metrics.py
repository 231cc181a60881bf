"""Metrics of several labels a text, with 95 % intervals; the values come from scikit-learn.

Axes: N texts, C classes, R bootstrap draws.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from sklearn import metrics as sklearn_metrics

from llama_keras.eval.metrics import RESAMPLES, Metric, wilson_interval


def label_set_metrics(
    expected: Sequence[Collection[str]],
    predicted: Sequence[Collection[str]],
    *,
    labels: Sequence[str],
    seed: int = 0,
) -> dict[str, Metric]:
    """Returns metrics of predicted sets of labels with their intervals.

    Args:
        expected: The right labels of N texts, each possibly none.
        predicted: The predicted ones.
        labels: The C labels that there are; one that no text has or gets counts in `f1` as 0.
        seed: Of the bootstrap's draws.

    Returns:
        `subset_accuracy`, the share of texts whose labels are all right (Wilson interval); `f1`,
        the unweighted mean over the labels, and `micro_f1`, over all decisions at once (2.5th and
        97.5th percentile of 1,000 bootstrap draws of texts).
    """
    right, found = (
        np.array([[label in row for label in labels] for row in rows], bool)
        for rows in (expected, predicted)
    )
    accuracy = float(sklearn_metrics.accuracy_score(right, found))
    count = len(right)
    metrics = {
        "subset_accuracy": Metric(
            accuracy, *wilson_interval(round(accuracy * count), count), "wilson"
        )
    }
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    hits, marks = draws @ (right & found), draws @ (right.astype(int) + found)  # (R, C)
    f1_score: Any = sklearn_metrics.f1_score  # its type says that zero_division is a word
    for name, average in (("f1", "macro"), ("micro_f1", "micro")):
        value = f1_score(right, found, average=average, zero_division=0.0)
        low, high = np.percentile(f1_of_counts(hits, marks, average=average), [2.5, 97.5])
        metrics[name] = Metric(float(value), float(low), float(high), "bootstrap")
    return metrics


def f1_of_counts(hits: np.ndarray, marks: np.ndarray, *, average: str) -> np.ndarray:
    """Returns F1 of many draws at once, which scikit-learn would take seconds for.

    Args:
        hits: Labels that are right and were given, `(R, C)`.
        marks: Labels that are right, plus labels that were given, `(R, C)`.
        average: `"micro"` or `"macro"`.

    Returns:
        `2 · hits / marks`, 0 where there are no marks; float64 `(R,)`.
    """
    if average == "micro":
        hits, marks = hits.sum(axis=1, keepdims=True), marks.sum(axis=1, keepdims=True)
    return (2 * hits / np.maximum(marks, 1)).mean(axis=1)
