"""Tests and intervals for two systems that were asked the same examples.

Axes: N examples, K numbers an example, R draws.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from llama_keras.eval.metrics import Z_95
from llama_keras.eval.sums import Sums

DRAWS = 5000
_CELLS = 1 << 22  # numbers of a chunk of draws: 32 MiB


@dataclass(frozen=True)
class Paired:
    """The difference B - A of a metric, and how sure it is.

    Attributes:
        difference: over all examples.
        low: lower end of the 95 % interval of the difference.
        high: its upper end.
        p_value: two-sided, of the hypothesis that there is no difference.
        test: `mcnemar` or `bootstrap`.
        only_a: with `mcnemar`, examples that A alone has right; else None.
        only_b: the same of B.
    """

    difference: float
    low: float
    high: float
    p_value: float
    test: str
    only_a: int | None = None
    only_b: int | None = None


def mcnemar_p(only_a: int, only_b: int) -> float:
    """Gives the exact two-sided p-value of McNemar's test (Psychometrika 12, 1947).

    That is the binomial test of the examples that one system alone has right against a fair coin.
    """
    n, fewer = only_a + only_b, min(only_a, only_b)
    term = tail = 1
    for k in range(1, fewer + 1):
        term = term * (n - k + 1) // k
        tail += term
    return min(1.0, 2 * tail / 2**n)


def share_difference_interval(only_a: int, only_b: int, n: int) -> tuple[float, float]:
    """Gives the 95 % interval of the difference B - A of two shares of the same examples.

    Bonett and Price's adjusted Wald interval (J. Educ. Behav. Stat. 37, 2012), which has a width
    where no example differs, too.
    """
    a, b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = Z_95 * np.sqrt((a + b - (b - a) ** 2) / (n + 2))
    return max(-1.0, float(b - a - half)), min(1.0, float(b - a + half))


def compare_shares(a: Sums, b: Sums) -> Paired:
    """Gives McNemar's comparison of two metrics whose examples are right or wrong."""
    right_a, right_b = (sums.values[sums.counts, 0] == 1 for sums in (a, b))
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    low, high = share_difference_interval(only_a, only_b, len(right_a))
    p_value = mcnemar_p(only_a, only_b)
    return Paired(b.value - a.value, low, high, p_value, "mcnemar", only_a, only_b)


def compare_sums(a: Sums, b: Sums, *, seed: int = 0, draws: int = DRAWS) -> Paired:
    """Gives the paired bootstrap's comparison of a metric of sums.

    Args:
        a: the metric of one system.
        b: of the other, of the same examples in the same order.
        seed: of the draws.
        draws: how many.
    """
    # Examples that are alike in both are drawn together: the same distribution, and less work.
    joint = np.concatenate([a.values, b.values], axis=1)
    kinds, times = np.unique(joint, axis=0, return_counts=True)
    total, width, rng = int(times.sum()), a.values.shape[1], np.random.default_rng(seed)
    chunk = max(1, _CELLS // max(kinds.shape))
    found = []
    for first in range(0, draws, chunk):
        drawn = rng.multinomial(total, times / total, size=min(chunk, draws - first)) @ kinds
        found.append(b.finish(drawn[:, width:]) - a.finish(drawn[:, :width]))
    return bootstrap_comparison(b.value - a.value, np.concatenate(found))


def compare_drawn(
    metric: Callable[[int, np.ndarray], float], n: int, *, seed: int = 0, draws: int = 200
) -> Paired:
    """Gives the paired bootstrap's comparison of a metric that is computed anew for each draw.

    Args:
        metric: from 0 for A or 1 for B and the numbers of examples `(N,)`, its value.
        n: how many examples there are.
        seed: of the draws.
        draws: how many; each costs two computations.
    """
    rng = np.random.default_rng(seed)

    def difference(chosen: np.ndarray) -> float:
        return metric(1, chosen) - metric(0, chosen)

    found = np.array([difference(rng.integers(n, size=n)) for _ in range(draws)])
    return bootstrap_comparison(difference(np.arange(n)), found)


def bootstrap_comparison(difference: float, drawn: np.ndarray) -> Paired:
    """Gives the percentile interval and the p-value that belongs to it, from R differences.

    The p-value is twice the smaller share of draws on either side of 0, one draw added to each (so
    it is never 0): below 0.05 where the interval leaves 0 out.
    """
    low, high = np.percentile(drawn, [2.5, 97.5])
    fewer = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p_value = min(1.0, 2 * float(fewer + 1) / (len(drawn) + 1))
    return Paired(float(difference), float(low), float(high), p_value, "bootstrap")
