"""Suites with `task: question_answering`: answers that stand in a context (SQuAD, CMRC 2018)."""

from collections.abc import Sequence

from llama_keras.eval.kinds.kind import EvalKind, MetricKind, Row, mean_of
from llama_keras.eval.qa_metrics import answer_scores, get_rule
from llama_keras.eval.requests import Answer, Doc, Request
from llama_keras.eval.suite import Suite


def _load(suite: Suite, source: str, split: str | None) -> list[Doc]:
    from llama_keras.data import load_question_answering

    data = load_question_answering(source, split=split, data_dir=suite.data.data_dir)
    return [{**doc, "answers": [item["text"] for item in doc["answers"]]} for doc in data.examples]


def _requests(doc: Doc, suite: Suite, shots: Sequence[Doc]) -> list[Request]:
    return [{"question": doc["question"], "context": doc["context"]}]


def _row(doc: Doc, suite: Suite, answers: Sequence[Answer]) -> Row:
    (answer,) = answers
    exact, f1 = answer_scores(answer["text"], doc["answers"], rule=suite.rule)
    # An answer that the rule leaves nothing of is none, as in the official script.
    has_answer = any(map(get_rule(suite.rule).normalize, doc["answers"]))
    return {
        "expected": doc["answers"],
        "predicted": answer["text"],
        "correct": bool(exact),
        "confidence": float(answer["score"]),
        "exact_match": exact,
        "f1": f1,
        "has_answer_f1": f1 if has_answer else None,
        "no_answer_accuracy": None if has_answer else exact,
    }


KIND = EvalKind(
    request="answer",
    load=_load,
    requests=_requests,
    row=_row,
    metrics={
        name: MetricKind(mean_of(name))
        for name in ("exact_match", "f1", "has_answer_f1", "no_answer_accuracy")
    },
)
