import json
import math

import pytest

from llama_keras.errors import InputError
from llama_keras.eval.harness import evaluate
from llama_keras.eval.metrics import wilson_interval
from llama_keras.eval.suite import load_suite


def test_result_holds_values_intervals_and_where_they_come_from(toy_suite, toy_target):
    result = evaluate(toy_suite, model=toy_target)
    assert result.n == 4
    accuracy = result.metrics["accuracy"]
    assert accuracy.value == 0.75
    assert (accuracy.low, accuracy.high) == wilson_interval(3, 4)
    assert result.data["source"].endswith("toy.csv")
    assert len(result.data["sha256"]) == 64
    assert result.seconds > 0
    assert result.versions["llama-keras"] != "not installed"


def test_the_suites_metrics_are_those_computed(toy_suite, toy_target):
    suite = load_suite(toy_suite).model_copy(update={"metrics": ["f1"]})
    result = evaluate(suite, model=toy_target)
    assert list(result.metrics) == ["f1"]
    assert result.metrics["f1"].value == pytest.approx((2 / 3 + 0.8) / 2)


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_answers_stay_with_their_texts_in_any_batch_size(
    tmp_path, toy_suite, toy_target, batch_size
):
    output = tmp_path / "result"
    evaluate(toy_suite, model=toy_target, batch_size=batch_size, output=output)
    rows = [json.loads(line) for line in (output / "examples.jsonl").read_text().splitlines()]
    assert [row["index"] for row in rows] == [0, 1, 2, 3]
    assert rows[2] == {
        "index": 2,
        "text": "good, not",
        "expected": "negative",
        "label": "positive",
        "score": 0.75,
    }
    results = json.loads((output / "results.json").read_text())
    assert results["metrics"]["accuracy"]["value"] == 0.75
    assert results["n"] == 4


def test_limit_takes_the_first_examples(toy_suite, toy_target):
    result = evaluate(toy_suite, model=toy_target, limit=2)
    assert (result.n, result.limit) == (2, 2)
    assert result.metrics["accuracy"].value == 1.0
    whole = evaluate(toy_suite, model=toy_target)
    assert result.data["sha256"] != whole.data["sha256"]


def test_data_replaces_the_suites_own(tmp_path, toy_suite, toy_target):
    file = tmp_path / "other.jsonl"
    file.write_text('{"text": "good", "label": "positive"}\n')
    result = evaluate(toy_suite, model=toy_target, data=file)
    assert (result.n, result.metrics["accuracy"].value) == (1, 1.0)
    assert result.data["source"] == str(file)


def test_existing_output_is_refused_before_any_work(tmp_path, toy_suite):
    output = tmp_path / "result"
    output.mkdir()
    with pytest.raises(InputError, match="exists already"):
        evaluate(toy_suite, model="http://localhost:9/never-asked", output=output)
    assert list(output.iterdir()) == []


def test_a_failure_leaves_no_output(tmp_path, toy_suite, toy_target):
    toy_target.fingerprint = lambda: object()  # cannot be written as JSON
    with pytest.raises(TypeError):
        evaluate(toy_suite, model=toy_target, output=tmp_path / "deep" / "result")
    assert list((tmp_path / "deep").iterdir()) == []


def test_labels_that_differ_are_refused_with_both_lists(tmp_path, toy_suite, toy_target):
    toy_target.labels = ["bad", "good"]
    with pytest.raises(InputError, match=r"\['bad', 'good'\].*\['negative', 'positive'\]"):
        evaluate(toy_suite, model=toy_target)
    toy_target.labels = ["negative"]
    with pytest.raises(InputError, match=r"suite toy .*'positive'.*\['negative'\]"):
        evaluate(toy_suite, model=toy_target)
    file = tmp_path / "other.jsonl"
    file.write_text('{"text": "so so", "label": "neutral"}\n')
    with pytest.raises(InputError, match=r"other.jsonl .*'neutral'.*\['negative', 'positive'\]"):
        evaluate(toy_suite, model=toy_target, data=file)


def test_a_label_that_a_silent_model_makes_up_is_refused(toy_suite, toy_target):
    toy_target.labels = None
    toy_target.classify = lambda texts: [{"label": "meh", "score": 1.0} for _ in texts]
    with pytest.raises(InputError, match="answer to example .*'meh'"):
        evaluate(toy_suite, model=toy_target)


def test_a_score_that_is_no_number_is_refused(toy_suite, toy_target):
    toy_target.classify = lambda texts: [{"label": "positive", "score": math.nan} for _ in texts]
    with pytest.raises(InputError, match="score nan"):
        evaluate(toy_suite, model=toy_target)


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"batch_size": 0}])
def test_sizes_below_one_are_refused(toy_suite, toy_target, wrong):
    with pytest.raises(InputError, match="at least 1"):
        evaluate(toy_suite, model=toy_target, **wrong)
