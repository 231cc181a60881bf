from typing import Any, cast

import numpy as np
import pytest
from sklearn import metrics

from llama_keras.eval.label_set_metrics import f1_of_counts, label_set_metrics

LABELS = ["a", "b", "never"]


def test_values_longhand():
    expected = [["a"], ["a", "b"], [], ["b"]]
    found = [["a"], ["a"], [], ["a", "b"]]
    measured = label_set_metrics(expected, found, labels=LABELS)
    assert measured["subset_accuracy"].value == 0.5
    assert measured["micro_f1"].value == pytest.approx(2 * 3 / (4 + 4))
    assert measured["f1"].value == pytest.approx((4 / 5 + 2 / 3 + 0) / 3)
    assert [metric.interval for metric in measured.values()] == ["wilson", "bootstrap", "bootstrap"]
    for metric in measured.values():
        assert 0 <= metric.low <= metric.value <= metric.high <= 1
    assert label_set_metrics(expected, found, labels=LABELS) == measured  # seeded


def test_all_right_and_nothing_given():
    right = [["a"], ["b", "never"], []] * 10  # every draw has each of them
    for metric in label_set_metrics(right, right, labels=LABELS).values():
        assert (metric.value, metric.high) == (1, 1) and metric.low > 0.8
    nothing = label_set_metrics([[]], [[]], labels=LABELS)
    assert nothing["micro_f1"].value == 0 and nothing["subset_accuracy"].value == 1


@pytest.mark.parametrize("average", ["micro", "macro"])
def test_the_fast_f1_is_that_of_scikit_learn(average):
    random, zero = np.random.default_rng(1), cast(Any, 0.0)  # scikit-learn's type is too narrow
    for _ in range(20):
        right, found = random.integers(0, 2, (2, 9, 3))
        right[:, 2] = found[:, 2] = 0
        hits, marks = (right & found).sum(0, keepdims=True), (right + found).sum(0, keepdims=True)
        assert f1_of_counts(hits, marks, average=average)[0] == pytest.approx(
            metrics.f1_score(right, found, average=average, zero_division=zero)
        )
