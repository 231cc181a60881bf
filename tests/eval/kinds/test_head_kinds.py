import numpy as np
import pytest
from seqeval.metrics import f1_score
from seqeval.scheme import IOB2

from llama_keras.errors import InputError
from llama_keras.eval.kinds import get_kind

CONLL = "Ada\tB-PER\nin\tO\nNew\tB-LOC\nYork\tI-LOC\n\nBonn\tB-LOC\n"


def test_entities_are_scored_as_seqeval_does(make_suite, score, tmp_path):
    file = tmp_path / "x.conll"
    file.write_text(CONLL)
    suite = make_suite("token_classification", data={"source": str(file)})
    docs = get_kind("token_classification").load(suite, str(file), None)
    assert docs[0] == {"text": "Ada in New York", "entities": [[0, 3, "PER"], [7, 15, "LOC"]]}
    found = [
        [{"start": 0, "end": 3, "label": "PER"}, {"start": 7, "end": 10, "label": "LOC"}],
        [{"start": 0, "end": 4, "label": "LOC"}],
    ]
    rows, metrics = score(suite, docs, [[{"entities": e}] for e in found], "f1")
    right = [["B-PER", "O", "B-LOC", "I-LOC"], ["B-LOC"]]
    said = [["B-PER", "O", "B-LOC", "O"], ["B-LOC"]]
    expected = f1_score(right, said, mode="strict", scheme=IOB2)
    assert metrics["f1"].value == pytest.approx(expected)
    assert [row["correct"] for row in rows] == [False, True]


def test_types_that_the_model_does_not_know_are_refused(make_suite):
    check = get_kind("token_classification").check
    docs = [{"text": "Ada", "entities": [[0, 3, "PER"]]}]
    with pytest.raises(InputError, match=r"\['PER'\], which the model does not know"):
        check(make_suite("token_classification"), docs, ["LOC"])
    check(make_suite("token_classification"), docs, ["LOC", "PER"])


def test_questions_with_and_without_answers_are_told_apart(make_suite, score):
    docs = [
        {"question": "?", "context": "the Red Sea", "answers": ["Red Sea", "the sea"]},
        {"question": "?", "context": "x", "answers": []},
    ]
    suite = make_suite("question_answering")
    names = ("exact_match", "f1", "has_answer_f1", "no_answer_accuracy")
    answers = [[{"text": "a red sea!", "score": 0.9}], [{"text": "x", "score": 0.5}]]
    _, found = score(suite, docs, answers, *names)
    assert [found[name].value for name in names] == [0.5, 0.5, 1.0, 0.0]


def test_metrics_that_no_example_has_are_refused_by_name(make_suite, score):
    docs = [{"question": "?", "context": "x", "answers": ["x"]}]
    with pytest.raises(InputError, match="no example has a value for no_answer_accuracy"):
        answers = [[{"text": "x", "score": 1.0}]]
        score(make_suite("question_answering"), docs, answers, "no_answer_accuracy")


def test_sets_of_labels_have_metrics_of_their_own(make_suite, score):
    suite = make_suite(
        "text_classification", labels=["a", "b"], data={"source": "x", "multi_label": True}
    )
    docs = [{"text": "1", "label": ["a", "b"]}, {"text": "2", "label": []}]
    answers = [[{"labels": ["b", "a"], "scores": {}}], [{"labels": ["a"], "scores": {}}]]
    rows, found = score(suite, docs, answers, "subset_accuracy", "micro_f1")
    assert rows[0]["correct"] and not rows[1]["correct"]
    assert found["subset_accuracy"].value == 0.5
    assert found["micro_f1"].value == pytest.approx(0.8)
    with pytest.raises(InputError, match="one label a text"):
        score(suite, docs, answers, "ece")


def test_calibration_error_is_the_weighted_gap_of_the_bins(make_suite, score):
    suite = make_suite("text_classification", labels=["a", "b"])
    docs = [{"text": "x", "label": label} for label in "aaab"]
    confident = [0.9, 0.9, 0.61, 0.61]
    answers = [[{"label": "a", "score": value}] for value in confident]
    _, found = score(suite, docs, answers, "ece")
    assert found["ece"].value == pytest.approx(0.5 * abs(1 - 0.9) + 0.5 * abs(0.5 - 0.61))
    assert found["ece"].low <= found["ece"].value <= found["ece"].high + 1e-9


def test_anchors_look_for_their_own_among_all(make_suite, score):
    suite = make_suite("retrieval")
    docs = [{"texts": ["a", "A"]}, {"texts": ["b", "B", "N"]}]
    vectors = {"a": [1, 0], "A": [2, 0.1], "b": [0, 1], "B": [1, 1], "N": [0, 3]}
    answers = [[{"embedding": vectors[t]} for t in doc["texts"]] for doc in docs]
    _, found = score(suite, docs, answers, "recall@1", "mrr")
    assert found["recall@1"].value == 0.5  # N is nearer to b than B is
    assert found["mrr"].value == pytest.approx(np.mean([1, 1 / 2]))
