"""Servers that are away, answer rubbish, or are not ours."""

import json
import logging
import math

import pytest

from llama_keras.errors import InputError, UnavailableError
from llama_keras.eval import evaluate
from llama_keras.eval.targets.grpc import GrpcTarget
from llama_keras.eval.targets.rest import RestTarget
from llama_keras.eval.targets.retries import with_retries
from llama_keras.serving.client import ServingError

GOOD = {"label": ["positive"], "score": [0.75], "scores": [[0.25, 0.75]]}


def metadata(outputs=("label", "score", "scores"), inputs=("text",), name="serving_default"):
    signature = {"inputs": dict.fromkeys(inputs, {}), "outputs": dict.fromkeys(outputs, {})}
    return {"metadata": {"signature_def": {"signature_def": {name: signature}}}}


def script(*answers, **signature):
    """Answers of a server: its metadata, and to `:predict` one after the other, the last again."""
    left = list(answers)

    def answer(method, path, body):
        if method == "GET":
            return metadata(**signature)
        return left.pop(0) if len(left) > 1 else left[0]

    return answer


@pytest.fixture
def target(fake_server, pauses):
    made = RestTarget(f"{fake_server.url}/v1/models/toy", sleep=pauses.append)
    yield made
    made.close()


def test_server_that_is_away_for_a_while_is_asked_again(fake_server, target, pauses, caplog):
    busy = (503, {"error": "loading"})
    fake_server.answer = script(busy, (429, {"error": "full"}), busy, {"outputs": GOOD})
    with caplog.at_level(logging.WARNING, "llama_keras"):
        found = target.ask("classify", [{"text": "a"}])
    assert found == [{"label": "positive", "score": 0.75}]
    assert pauses == [1.0, 2.0, 4.0]
    assert "answered 503: loading Asked again in 1 s (1 of 5)" in caplog.text


def test_server_that_stays_away_stops_the_evaluation(fake_server, target, pauses):
    fake_server.answer = script((502, {}))
    with pytest.raises(UnavailableError, match="502.*Asked 6 times"):
        target.ask("classify", [{"text": "a"}])
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0]


def test_wrong_address_is_told_soon(pauses):
    target = RestTarget("http://127.0.0.1:9/v1/models/toy", sleep=pauses.append)
    with pytest.raises(UnavailableError, match="No connection to .*llama-keras serve"):
        target.requests  # noqa: B018
    target.close()
    assert pauses == [1.0, 2.0, 4.0]


def test_wrong_address_of_a_grpc_server_is_told_soon(pauses):
    target = GrpcTarget("grpc://127.0.0.1:9/toy", sleep=pauses.append, timeout=5.0)
    with pytest.raises(UnavailableError, match="127.0.0.1:9"):
        target.requests  # noqa: B018
    target.close()
    assert pauses == [1.0, 2.0, 4.0]


def test_refusals_are_not_asked_again(fake_server, target, pauses):
    fake_server.answer = script((400, {"error": "no such thing"}))
    with pytest.raises(InputError, match="answered 400: no such thing"):
        target.ask("classify", [{"text": "a"}])
    with pytest.raises(ServingError):
        with_retries(lambda: raising(ServingError("no", status=404)), retries=3)
    assert pauses == []


def raising(error):
    raise error


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        ({**GOOD, "label": ["a", "b"]}, r"by name and rows, \{'label': 2"),
        ({**GOOD, "label": "positive"}, "'label': None"),
        ({"score": [0.5], "scores": [[1]]}, "KeyError: 'label'"),
        ({**GOOD, "score": ["high"]}, "ValueError"),
        ({**GOOD, "scores": [None]}, "TypeError"),
    ],
)
def test_answers_of_another_shape_are_refused(fake_server, target, outputs, reason):
    fake_server.answer = script({"outputs": outputs})
    with pytest.raises(InputError, match=f"does not answer 'classify'.*{reason}"):
        target.ask("classify", [{"text": "a"}])


@pytest.mark.parametrize("rubbish", [b"<html>", b"[1, 2]", b""])
def test_rubbish_is_refused(fake_server, target, rubbish):
    fake_server.answer = script(rubbish)
    with pytest.raises(InputError):
        target.ask("classify", [{"text": "a"}])


def test_server_without_signatures_is_refused(fake_server, target):
    fake_server.answer = lambda *_: {"metadata": 5}
    with pytest.raises(InputError, match="does not tell its signatures"):
        target.requests  # noqa: B018


def test_single_output_and_input_of_other_names(fake_server, target):
    fake_server.answer = script(
        {"outputs": [[1.0, 2.0]]}, outputs=("embedding",), inputs=("sentence",), name="embed"
    )
    assert target.requests == {"embed"}
    assert target.ask("embed", [{"text": "a"}]) == [{"embedding": [1.0, 2.0]}]
    assert fake_server.asked[-1][2] == {"signature_name": "embed", "inputs": {"sentence": ["a"]}}


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        ({**GOOD, "score": [math.nan]}, "score that is not a number"),
        ({**GOOD, "label": ["meh"]}, "'meh'"),
    ],
)
def test_numbers_and_labels_that_are_none_are_refused(
    fake_server, target, toy_suite, outputs, reason
):
    fake_server.answer = script(json.dumps({"outputs": outputs}).encode())
    with pytest.raises(InputError, match=reason):
        evaluate(toy_suite, model=target, limit=1)
    target.labels = ["positive", "other"]
    with pytest.raises(InputError, match="'other'"):
        evaluate(toy_suite, model=target, limit=1)
