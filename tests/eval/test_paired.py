import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from llama_keras.eval.paired import (
    bootstrap_comparison,
    compare_drawn,
    compare_shares,
    compare_sums,
    mcnemar_p,
    share_difference_interval,
)
from llama_keras.eval.sums import Sums


def mean_of(values):
    columns = np.stack([np.asarray(values, float), np.ones(len(values))], axis=1)
    return Sums(columns, lambda sums: sums[..., 0] / sums[..., 1], is_mean=True)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_binomial_test(only_a, only_b):
    n = only_a + only_b
    wanted = binomtest(only_a, n).pvalue if n else 1.0
    assert mcnemar_p(only_a, only_b) == pytest.approx(wanted, rel=1e-9)


def test_the_interval_of_shares_is_bonett_and_prices():
    # Longhand for 10 and 2 of 50: p12 = 11/52, p21 = 3/52.
    half = 1.959963984540054 * np.sqrt((14 / 52 - (8 / 52) ** 2) / 52)
    assert share_difference_interval(2, 10, 50) == pytest.approx((8 / 52 - half, 8 / 52 + half))
    low, high = share_difference_interval(0, 0, 50)
    assert low < 0 < high and low == -high


def test_shares_count_who_alone_is_right():
    a, b = mean_of([1, 1, 0, 0, 1, 0]), mean_of([1, 0, 1, 1, 1, 0])
    found = compare_shares(a, b)
    assert (found.only_a, found.only_b, found.test) == (1, 2, "mcnemar")
    assert found.difference == pytest.approx(1 / 6) and found.p_value == 1.0


def test_the_bootstrap_is_paired():
    rng = np.random.default_rng(0)
    hard = rng.normal(size=300) * 10
    a, b = hard, hard + 0.2 + rng.normal(size=300) * 0.5
    found = compare_sums(mean_of(a), mean_of(b), draws=2000)
    # The normal interval of the mean of differences, which an unpaired test could not see.
    half = 1.96 * (b - a).std() / np.sqrt(300)
    assert (found.low, found.high) == pytest.approx(
        ((b - a).mean() - half, (b - a).mean() + half), abs=0.015
    )
    assert found.p_value < 0.05 and found.difference == pytest.approx((b - a).mean())
    drawn = compare_drawn(lambda which, chosen: float((a, b)[which][chosen].mean()), 300, draws=500)
    assert drawn.difference == pytest.approx(found.difference)
    assert (drawn.low, drawn.high) == pytest.approx((found.low, found.high), abs=0.03)


def test_chunks_of_draws_do_not_change_the_result(monkeypatch):
    rng = np.random.default_rng(0)
    a, b = mean_of(rng.random(40)), mean_of(rng.random(40))
    whole = compare_sums(a, b, draws=300, seed=3)
    monkeypatch.setattr("llama_keras.eval.paired._CELLS", 40 * 7)
    assert vars(compare_sums(a, b, draws=300, seed=3)) == pytest.approx(vars(whole))
    assert compare_sums(a, b, draws=300, seed=4) != whole


def test_no_difference_is_never_sure():
    same = mean_of([0.5, 0.25, 1.0])
    found = compare_sums(same, same)
    assert (found.difference, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)


@given(st.integers(0, 2**32 - 1), st.floats(-0.5, 0.5))
def test_p_and_interval_agree(seed, shift):
    drawn = np.random.default_rng(seed).normal(size=400) + 4 * shift
    found = bootstrap_comparison(4 * shift, drawn)
    assert 0 < found.p_value <= 1
    if found.p_value < 0.045:
        assert found.low > 0 or found.high < 0
    if found.p_value > 0.055:
        assert found.low <= 0 <= found.high
