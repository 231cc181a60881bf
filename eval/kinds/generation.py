"""Suites with `task: generation`: what the model writes, against one right text.

`exact_match` compares without white space at either end; BLEU and chrF are sacrebleu's.
"""

from collections.abc import Sequence

from llama_keras.eval.kinds.kind import (
    EvalKind,
    MetricKind,
    Row,
    filled,
    json_docs,
    mean_of,
    with_solved_shots,
)
from llama_keras.eval.requests import Answer, Doc, Request
from llama_keras.eval.suite import Suite


def _requests(doc: Doc, suite: Suite, shots: Sequence[Doc]) -> list[Request]:
    prompt = suite.prompt
    text = with_solved_shots(doc, suite, shots)
    request: Request = {
        "prompt": text,
        "until": list(prompt.until),
        "max_new_tokens": prompt.max_new_tokens,
    }
    if prompt.chat:
        request["chat"] = True
    return [request]


def _row(doc: Doc, suite: Suite, answers: Sequence[Answer]) -> Row:
    (answer,) = answers
    expected = filled(suite.prompt.target, doc, suite).strip()
    predicted = answer["text"].strip()
    return {
        "expected": expected,
        "predicted": predicted,
        "exact_match": float(expected == predicted),
    }


def _signatures() -> dict[str, str]:
    from llama_keras.eval.generation_metrics import signatures

    return {f"sacrebleu {name}": signature for name, signature in signatures().items()}


def _corpus(name: str) -> MetricKind:
    def compute(rows: Sequence[Row], suite: Suite, seed: int):
        from llama_keras.eval.generation_metrics import generation_metrics

        expected = [row["expected"] for row in rows]
        return generation_metrics(expected, [row["predicted"] for row in rows])[name]

    return MetricKind(compute)


KIND = EvalKind(
    request="generate_until",
    load=json_docs,
    requests=_requests,
    row=_row,
    metrics={
        "exact_match": MetricKind(mean_of("exact_match")),
        "bleu": _corpus("bleu"),
        "chrf": _corpus("chrf"),
    },
    prompted=True,
    signatures=_signatures,
)
