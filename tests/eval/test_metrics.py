import numpy as np
import pytest
from sklearn.metrics import f1_score, matthews_corrcoef

from llama_keras.eval import metrics
from llama_keras.eval.metrics import METRICS, compute_metrics, wilson_interval
from llama_keras.eval.suite import Suite, SuiteData


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch):
    monkeypatch.setattr(metrics, "RESAMPLES", 200)


EXPECTED = ["a"] * 50 + ["b"] * 30 + ["c"] * 20
PREDICTED = ["a"] * 40 + ["b"] * 10 + ["b"] * 24 + ["c"] * 6 + ["c"] * 15 + ["a"] * 5


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_gives_published_values(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)
    mirrored = wilson_interval(trials - successes, trials)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_values_are_scikit_learns():
    found = compute_metrics(EXPECTED, PREDICTED, labels=["a", "b", "c"], names=list(METRICS))
    assert found["accuracy"].value == pytest.approx(0.79)
    assert found["micro_f1"].value == pytest.approx(0.79)
    assert found["f1"].value == pytest.approx(f1_score(EXPECTED, PREDICTED, average="macro"))
    assert found["mcc"].value == pytest.approx(matthews_corrcoef(EXPECTED, PREDICTED))
    assert found["accuracy"].interval == "wilson"
    assert found["f1"].interval == "bootstrap"
    for metric in found.values():
        assert metric.low < metric.value < metric.high


def test_a_label_without_examples_lowers_macro_f1():
    found = compute_metrics(["a", "a"], ["a", "a"], labels=["a", "b"], names=["f1"])
    assert found["f1"].value == 0.5


def test_bootstrap_is_seeded_and_equals_resampling_the_examples():
    def interval(seed):
        metric = compute_metrics(
            EXPECTED, PREDICTED, labels=["a", "b", "c"], names=["f1"], seed=seed
        )["f1"]
        return metric.low, metric.high

    assert interval(0) == interval(0) != interval(1)
    generator = np.random.default_rng(7)
    expected, predicted = np.array(EXPECTED), np.array(PREDICTED)
    scores = []
    for _ in range(200):
        rows = generator.integers(len(expected), size=len(expected))
        scores.append(f1_score(expected[rows], predicted[rows], average="macro"))
    assert interval(0) == pytest.approx(np.percentile(scores, [2.5, 97.5]), abs=0.03)


def test_suites_accept_exactly_the_metrics_that_there_are():
    suite = Suite(name="x", data=SuiteData(source="x.jsonl"), metrics=list(METRICS))  # pyright: ignore[reportArgumentType]
    assert list(suite.metrics) == list(METRICS)
