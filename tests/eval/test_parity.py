import json
import math

import pytest
import typer
from typer.testing import CliRunner

from llama_keras.cli import build_app
from llama_keras.errors import InputError, UnavailableError
from llama_keras.eval.differences import Differences
from llama_keras.eval.parity import parity
from tests.toy_evaluation import GoodTarget


class Other(GoodTarget):
    """Another model: its answers are the good one's, changed."""

    location = "other"

    def __init__(self, change):
        super().__init__()
        self.change = change

    def ask(self, kind, requests, *, batch_size=32):
        answers = super().ask(kind, requests, batch_size=batch_size)
        return [
            self.change(request, answer) for request, answer in zip(requests, answers, strict=True)
        ]


def moved(request, answer):
    return {**answer, "score": answer["score"] + (0.01 if request["text"] == "bad" else 1e-6)}


def test_a_model_is_like_itself(toy_suite, toy_target):
    found = parity(toy_suite, a=toy_target, b=GoodTarget())
    assert (found.n, found.requests, found.differences) == (4, 4, [])
    assert found.largest == {"score": 0.0} and found.unshared == {}
    assert found.a == {
        "kind": "toy",
        "location": "toy",
        "sha256": "0" * 64,
        "precision": None,
        "settings": {},
    }


def test_every_answer_that_differs_is_listed(toy_suite, toy_target):
    found = parity(toy_suite, a=toy_target, b=Other(moved), tolerance=1e-4)
    assert found.differing == [1]
    (difference,) = found.differences
    assert difference.request == {"text": "bad"} and difference.keys == ["score"]
    assert (difference.a["score"], difference.b["score"]) == (0.75, 0.76)
    assert found.largest == {"score": pytest.approx(0.01)}
    assert parity(toy_suite, a=toy_target, b=Other(moved), tolerance=0.02).differing == []
    assert parity(toy_suite, a=toy_target, b=Other(moved), tolerance=0).differing == [0, 1, 2, 3]
    assert json.loads(json.dumps(found.to_dict()))["differences"][0]["doc_id"] == 1


def nested(request, answer):
    return {**answer, "scores": {"negative": 0.5, "positive": 0.5}, "entities": [1, {"start": 3}]}


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        (lambda _, a: {**a, "label": "positive"}, ["label"]),
        (lambda _, a: {**a, "score": math.inf}, ["score"]),
        (lambda _, a: {**a, "entities": [1]}, ["entities"]),
        (lambda _, a: {**a, "entities": [2, {"start": 3}]}, ["entities[]"]),
        (lambda _, a: {**a, "entities": [1, {"start": 4}]}, ["entities[].start"]),
        (lambda _, a: {**a, "scores": {"negative": 0.5, "positive": 0.6}}, ["scores.positive"]),
        (lambda _, a: {**a, "entities": [1, {"start": None}]}, None),
        (lambda _, a: {k: v for k, v in a.items() if k != "scores"}, None),
    ],
)
def test_values_are_compared_however_deep(toy_suite, change, keys):
    b = Other(lambda request, answer: change(request, nested(request, answer)))
    found = parity(toy_suite, a=Other(nested), b=b, limit=2)
    if keys is None:  # one of them does not tell it
        assert found.differences == [] and set(found.unshared.values()) == {"a"}
    else:
        assert found.differences and all(d.keys == keys for d in found.differences)


def test_answers_that_are_none_are_refused(toy_suite, toy_target):
    bad = Other(lambda request, answer: {**answer, "score": math.nan})
    with pytest.raises(InputError, match="score that is not a number"):
        parity(toy_suite, a=toy_target, b=bad)
    with pytest.raises(InputError, match="tolerance must be at least 0"):
        parity(toy_suite, a=toy_target, b=toy_target, tolerance=math.nan)
    toy_target.requests = frozenset({"tag"})
    with pytest.raises(InputError, match="asks for 'classify'"):
        parity(toy_suite, a=GoodTarget(), b=toy_target)


@pytest.mark.parametrize(
    ("precisions", "tolerance", "reason"),
    [
        (("float32", "float32"), 1e-4, "a float32, b float32"),
        (("float32", "bfloat16"), 1e-2, "a float32, b bfloat16"),
        (("float16", None), 1e-2, "a float16, b does not tell"),
        ((None, None), 1e-4, "a does not tell, b does not tell"),
    ],
)
def test_tolerance_follows_the_precision_and_can_be_asked_for(
    toy_suite, precisions, tolerance, reason
):
    targets = [GoodTarget(), Other(lambda _, answer: {**answer, "score": answer["score"] + 5e-3})]
    for target, precision in zip(targets, precisions, strict=True):
        target.precision = precision
    a, b = targets
    found = parity(toy_suite, a=a, b=b)
    assert (found.tolerance, found.tolerance_reason) == (tolerance, f"computed in: {reason}")
    assert len(found.differing) == (0 if tolerance > 5e-3 else 4)
    assert len(parity(toy_suite, a=a, b=b, tolerance=1e-3).differing) == 4
    assert parity(toy_suite, a=a, b=b, tolerance=0.1).tolerance_reason == "as asked for"


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda a: {**a, "label": "other"}, "label"),
        (lambda a: {**a, "is_greedy": False}, "is_greedy"),
        (lambda a: {**a, "start": a["start"] + 1}, "start"),
        (lambda a: {**a, "text": "Dirac."}, "text"),
        (lambda a: {**a, "entities": [*a["entities"], {"start": 9}]}, "entities"),
    ],
)
def test_no_tolerance_is_wide_enough_for_another_answer(change, key):
    answer = {"label": "x", "is_greedy": True, "start": 3, "text": "Dirac", "entities": []}
    assert Differences(math.inf).between(answer, dict(answer)) == []
    assert Differences(math.inf).between(answer, change(answer)) == [key]


def test_settings_go_to_the_target_that_takes_them(toy_suite, toy_export, toy_target):
    found = parity(toy_suite, a=toy_target, b=toy_export, dtype="float32")
    assert found.differences == [] and found.unshared == {"scores": "b"}


@pytest.fixture
def invoke(monkeypatch, toy_suite):
    targets = {"good": GoodTarget(), "moved": Other(moved), "away": Other(raising)}
    monkeypatch.setattr("llama_keras.eval.parity.open_target", lambda name, **_: targets[name])
    app: typer.Typer = build_app()
    return lambda *rest: CliRunner().invoke(
        app, ["evaluate", "run", str(toy_suite), "--model", "good", "--parity", *map(str, rest)]
    )


def raising(request, answer):
    raise UnavailableError("gone")


def test_command_exits_with_1_where_something_differs(tmp_path, invoke):
    done = invoke("good")
    assert done.exit_code == 0, done.output
    assert "toy: all 4 examples alike (4 requests)" in done.output
    told = "tolerance of numbers 0.0001, computed in: a does not tell, b does not tell"
    assert told in done.output
    done = invoke("moved", "--output", tmp_path / "out")
    assert done.exit_code == 1
    assert "toy: 1 of 4 examples differ" in done.output
    assert 'example 1: score; asked {"text": "bad"}' in done.output
    (kept,) = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert kept["differing"] == [1]
    done = invoke("moved", "--tolerance", 0.1)
    assert done.exit_code == 0 and "tolerance of numbers 0.1, as asked for" in done.output
    done = invoke("moved", "--json")
    assert json.loads(done.stdout) == [kept]
    assert invoke("away").exit_code == 3
    done = invoke("good", "--fail-under", "accuracy=0.1")
    assert isinstance(done.exception, InputError) and "scores nothing" in str(done.exception)
