"""Metrics with 95 % intervals; the values come from scikit-learn.

Axes: N examples, C classes.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn import metrics as sklearn_metrics

Z_95 = 1.959963984540054
RESAMPLES = 1000


@dataclass(frozen=True)
class Metric:
    """A metric's value and how sure it is.

    Attributes:
        value: The metric over all examples.
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
        interval: How the interval was made: `wilson` or `bootstrap`.
    """

    value: float
    low: float
    high: float
    interval: str


@dataclass(frozen=True)
class _Cells:
    """The examples counted by (expected, predicted): all that the metrics need to know.

    Drawing N examples with replacement draws these counts from a multinomial distribution, so
    the bootstrap costs the same for any N.
    """

    expected: list[str]
    predicted: list[str]
    counts: np.ndarray


def _accuracy(cells: _Cells, counts: np.ndarray, labels: Sequence[str]) -> float:
    return float(
        sklearn_metrics.accuracy_score(cells.expected, cells.predicted, sample_weight=counts)
    )


def _mcc(cells: _Cells, counts: np.ndarray, labels: Sequence[str]) -> float:
    return float(
        sklearn_metrics.matthews_corrcoef(cells.expected, cells.predicted, sample_weight=counts)
    )


def _f1(average: str) -> "Score":
    def score(cells: _Cells, counts: np.ndarray, labels: Sequence[str]) -> float:
        return float(
            sklearn_metrics.f1_score(
                cells.expected,
                cells.predicted,
                labels=list(labels),
                average=average,
                sample_weight=counts,
                zero_division=0.0,
            )
        )

    return score


Score = Callable[[_Cells, np.ndarray, Sequence[str]], float]

# `f1` is the unweighted mean over the classes; `micro_f1` equals accuracy for single labels.
METRICS: dict[str, Score] = {
    "accuracy": _accuracy,
    "f1": _f1("macro"),
    "micro_f1": _f1("micro"),
    "mcc": _mcc,
}


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Returns the 95 % Wilson score interval of a share of successes."""
    share, z2 = successes / trials, Z_95**2
    centre = share + z2 / (2 * trials)
    half = Z_95 * np.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    scale = 1 + z2 / trials
    return max(0.0, float((centre - half) / scale)), min(1.0, float((centre + half) / scale))


def compute_metrics(
    expected: Sequence[str],
    predicted: Sequence[str],
    *,
    labels: Sequence[str],
    names: Sequence[str] = ("accuracy", "f1"),
    seed: int = 0,
) -> dict[str, Metric]:
    """Returns metrics of predicted labels with their intervals.

    Args:
        expected: N right labels.
        predicted: N predicted labels.
        labels: The C labels that there are; one that no example has counts in `f1` as 0.
        names: Which of `METRICS` to compute.
        seed: Of the bootstrap's draws.

    Returns:
        Name to metric; accuracy has a Wilson interval, the others the 2.5th and 97.5th
        percentile of 1,000 bootstrap draws.
    """
    pairs = Counter(zip(expected, predicted, strict=True))
    keys = sorted(pairs)
    counts = np.array([pairs[key] for key in keys])
    cells = _Cells([e for e, _ in keys], [p for _, p in keys], counts)
    return {name: _metric(name, cells, labels, seed) for name in names}


def _metric(name: str, cells: _Cells, labels: Sequence[str], seed: int) -> Metric:
    score, total = METRICS[name], int(cells.counts.sum())
    value = score(cells, cells.counts, labels)
    if name == "accuracy":
        return Metric(value, *wilson_interval(round(value * total), total), "wilson")
    draws = np.random.default_rng(seed).multinomial(total, cells.counts / total, size=RESAMPLES)
    low, high = np.percentile([score(cells, draw, labels) for draw in draws], [2.5, 97.5])
    return Metric(value, float(low), float(high), "bootstrap")
