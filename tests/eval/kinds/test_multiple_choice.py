import math

import pytest

from llama_keras.errors import InputError
from llama_keras.eval.kinds import get_kind

KIND = get_kind("multiple_choice")
DOC = {"context": "The sky is", "choices": ["blue", "天蓝色的"], "answer": 1}
SHOT = {"context": "Grass is", "choices": ["green", "red"], "answer": 0}


def said(*logprobs):
    return [{"logprob": p, "is_greedy": False, "num_tokens": 1} for p in logprobs]


def test_each_choice_follows_the_context_and_worked_examples(make_suite):
    suite = make_suite("multiple_choice", prompt={"context": "Q: {context}", "separator": "\n"})
    asked = KIND.requests(DOC, suite, [SHOT])
    assert [request["context"] for request in asked] == ["Q: Grass is green\nQ: The sky is"] * 2
    assert [request["continuation"] for request in asked] == [" blue", " 天蓝色的"]


def test_replacements_are_made_in_contexts_alone(make_suite):
    suite = make_suite(
        "multiple_choice", prompt={"replace": {"(is)$": r"\1 not", "blue|green": "grey"}}
    )
    asked = KIND.requests(DOC, suite, [SHOT])
    assert asked[0] == {
        "context": "Grass is not green\n\nThe sky is not",
        "continuation": " blue",
    }
    cloze = make_suite("cloze", prompt={"replace": {"sky": "sea"}})
    (asked,) = get_kind("cloze").requests({**DOC, "target": "blue sky"}, cloze, [])
    assert asked == {"context": "The sea is", "continuation": " blue sky"}


def test_choices_may_be_the_suites_and_answers_their_words(make_suite):
    suite = make_suite(
        "multiple_choice",
        prompt={
            "context": "{text}\n",
            "choices": ["negative", "positive"],
            "answer": "label",
            "delimiter": "",
        },
    )
    doc = {"text": "Good {braces} here", "label": "positive"}
    asked = KIND.requests(doc, suite, [])
    assert asked[1] == {"context": "Good {braces} here\n", "continuation": "positive"}
    assert KIND.row(doc, suite, said(-2.0, -1.0))["acc"] == 1.0


def test_normalizations_are_those_of_lm_evaluation_harness(make_suite, score):
    # By itself the first is likelier; by characters (4 and 4) too; by bytes (4 and 12) the second.
    rows, found = score(
        make_suite("multiple_choice"), [DOC], [said(-4.0, -5.0)], "acc", "acc_norm", "acc_bytes"
    )
    assert [found[name].value for name in ("acc", "acc_norm", "acc_bytes")] == [0.0, 0.0, 1.0]
    assert rows[0]["predicted"] == "blue"
    assert rows[0]["confidence"] == pytest.approx(1 / (1 + math.exp(-1)))


def test_the_first_of_equals_wins_and_certainty_is_measured(make_suite, score):
    docs = [{**DOC, "answer": 0}, DOC]
    rows, found = score(
        make_suite("multiple_choice"), docs, [said(-3, -3)] * 2, "acc", "choice_perplexity"
    )
    assert [row["acc"] for row in rows] == [1.0, 0.0]
    assert found["acc"].interval == "wilson"
    assert found["choice_perplexity"].value == pytest.approx(2.0)


def test_one_text_may_be_scored_after_each_choice(make_suite, score):
    suite = make_suite(
        "multiple_choice",
        prompt={"context": "{context} {choice}", "scored": "{rest}.", "choices": "options"},
    )
    doc = {"context": "So", "options": ["Ann", "{Bob}"], "rest": "won", "answer": 1}
    shot = {"context": "But", "options": ["Cy", "Di"], "rest": "lost", "answer": 0}
    asked = KIND.requests(doc, suite, [shot])
    assert [request["context"] for request in asked] == [
        "But Cy lost.\n\nSo Ann",
        "But Cy lost.\n\nSo {Bob}",
    ]
    assert [request["continuation"] for request in asked] == [" won."] * 2
    # The scored texts are of one length, so no normalization changes who is first.
    _, found = score(suite, [doc], [said(-5.0, -4.0)], "acc", "acc_norm", "acc_bytes")
    assert [metric.value for metric in found.values()] == [1.0] * 3


@pytest.mark.parametrize(
    ("doc", "reason"),
    [
        ({**DOC, "answer": 2}, "answer=2 is none of"),
        ({**DOC, "answer": True}, "answer=True is none of"),
        ({**DOC, "answer": "red"}, "answer='red' is none of"),
        ({**DOC, "choices": ["one"]}, "at least two texts"),
        ({**DOC, "choices": ["one", ""]}, "at least two texts"),
        ({"choices": ["a", "b"], "answer": 0}, "does not fit an example with the keys"),
    ],
)
def test_malformed_examples_are_told(make_suite, doc, reason):
    with pytest.raises(InputError, match=reason):
        KIND.requests(doc, make_suite("multiple_choice"), [])
