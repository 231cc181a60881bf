import numpy as np
import pytest

from llama_keras.eval.folder import read_evaluation
from llama_keras.eval.kinds import METRIC_NAMES, get_kind
from llama_keras.eval.suite import Suite
from llama_keras.eval.sums import sums_of
from tests.toy_records import NAMES

pytestmark = pytest.mark.usefixtures("few_draws")


def check(metric, rows, suite):
    """The sums give the metric's value, for all rows and for some of them twice."""
    kind = get_kind(suite.task).metrics[metric]
    sums = sums_of(metric, rows, suite)
    assert sums is not None
    assert sums.value == pytest.approx(kind.compute(rows, suite, 0).value)
    if suite.task != "retrieval":  # its rows search each other
        times = np.random.default_rng(1).multinomial(len(rows), np.full(len(rows), 1 / len(rows)))
        drawn = [row for row, count in zip(rows, times, strict=True) for _ in range(count)]
        values = sums.finish(np.stack([times @ sums.values, sums.values.sum(axis=0)]))
        assert values[0] == pytest.approx(kind.compute(drawn, suite, 0).value)
        assert values[1] == pytest.approx(sums.value)


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_is_the_one_of_its_kind(records, name):
    for folder in records:
        evaluation = read_evaluation(folder)
        suite, metrics = evaluation.suites[name], evaluation.results[name].metrics
        rows = evaluation.rows(name, evaluation.samples(name))
        assert set(metrics) == set(METRIC_NAMES[suite.task]) - {"subset_accuracy"}
        for metric in metrics:
            check(metric, rows, suite)


def test_sets_of_labels_have_their_own(tmp_path):
    suite = Suite.model_validate(
        {
            "name": "sets",
            "data": {"source": "x.jsonl", "multi_label": True},
            "labels": ["a", "b", "c", "never"],
        }
    )
    rng = np.random.default_rng(0)
    rows = [
        {key: [label for label in "abc" if rng.random() < 0.5] for key in ("expected", "predicted")}
        for _ in range(30)
    ]
    rows = [{**row, "correct": row["expected"] == row["predicted"]} for row in rows]
    for metric in ("f1", "micro_f1", "subset_accuracy"):
        check(metric, rows, suite)
    shares = sums_of("subset_accuracy", rows, suite)
    assert shares is not None and shares.is_share


def test_a_constant_answer_has_no_correlation():
    suite = Suite.model_validate({"name": "x", "data": {"source": "x.jsonl"}, "labels": ["a", "b"]})
    rows = [{"expected": label, "predicted": "a"} for label in "ab"]
    check("mcc", rows, suite)


def test_a_metric_that_is_none_of_sums_is_told():
    suite = Suite.model_validate({"name": "x", "data": {"source": "x.jsonl"}})
    assert sums_of("rouge", [], suite) is None
