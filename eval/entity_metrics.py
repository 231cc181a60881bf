"""Precision, recall and F1 of entities: right is what has exactly the right place and type.

That is the strict count of seqeval and of the CoNLL shared task's script, here of spans and not of
tags: an entity that no tag can spell (it begins within a token, or overlaps another) still counts
as one to be found.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from llama_keras.eval.metrics import RESAMPLES, Metric

NAMES = ("precision", "recall", "f1")


def entity_counts(expected: Sequence[Sequence[Any]], found: Sequence[Sequence[Any]]) -> np.ndarray:
    """Gives how many entities of each text are right, were found, and should be: int64 `(N, 3)`.

    Args:
        expected: N lists of entities, each a tuple of start, end and label.
        found: as many.
    """
    counts = []
    for right, answer in zip(expected, found, strict=True):
        # Not sets: an entity that is there twice is to be found twice.
        both = Counter(map(tuple, right)) & Counter(map(tuple, answer))
        counts.append((both.total(), len(answer), len(right)))
    return np.array(counts, dtype="int64").reshape(-1, 3)


def scores_of_counts(counts: np.ndarray) -> np.ndarray:
    """Gives `NAMES` for counts `(…, 3)` of right, found and expected; 0 where nothing divides."""
    right, found, expected = np.moveaxis(np.asarray(counts, "float64"), -1, 0)

    def share(part, whole):
        return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)

    return np.stack(
        [share(right, found), share(right, expected), share(2 * right, found + expected)]
    )


def entity_metrics(
    expected: Sequence[Sequence[Any]], found: Sequence[Sequence[Any]], *, seed: int = 0
) -> dict[str, Metric]:
    """Gives `precision`, `recall` and `f1` over all entities (micro-average), with intervals.

    Args:
        expected: N lists of entities, each a tuple of start, end and label.
        found: as many.
        seed: of the bootstrap's draws.

    Returns:
        Name to metric; the interval is the 2.5th and 97.5th percentile of 1,000 draws of N texts.
    """
    counts = entity_counts(expected, found)
    # Texts with equal counts are drawn together: the same distribution, and much less work.
    kinds, times = np.unique(counts, axis=0, return_counts=True)
    total = int(times.sum())
    draws = np.random.default_rng(seed).multinomial(total, times / total, size=RESAMPLES)
    values = scores_of_counts(counts.sum(axis=0))
    low, high = np.percentile(scores_of_counts(draws @ kinds), [2.5, 97.5], axis=1)
    return {
        name: Metric(float(value), float(a), float(b), "bootstrap")
        for name, value, a, b in zip(NAMES, values, low, high, strict=True)
    }


def metrics_by_type(
    expected: Sequence[Sequence[Any]], found: Sequence[Sequence[Any]]
) -> dict[str, dict[str, float]]:
    """Gives `NAMES` and `support` (how many are to be found) for each type of entity."""
    types = sorted({span[2] for row in (*expected, *found) for span in row})
    result = {}
    for name in types:
        of_type = [[[s for s in row if s[2] == name] for row in rows] for rows in (expected, found)]
        counts = entity_counts(*of_type).sum(axis=0)
        scores = zip(NAMES, scores_of_counts(counts).tolist(), strict=True)
        result[name] = {**dict(scores), "support": int(counts[2])}
    return result
