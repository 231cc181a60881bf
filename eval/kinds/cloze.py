"""Suites with `task: cloze`: how likely is the one right continuation (LAMBADA and its like).

`acc` is the share of continuations that greedy decoding would give, `perplexity` the exponential of
the mean over examples of the negative sum of log-probabilities: both as in lm-evaluation-harness.
"""

from collections.abc import Sequence

from llama_keras.eval.kinds.kind import (
    EvalKind,
    MetricKind,
    Row,
    exponential_of_mean,
    filled,
    json_docs,
    mean_of,
    with_solved_shots,
)
from llama_keras.eval.requests import Answer, Doc, Request
from llama_keras.eval.suite import Suite


def _requests(doc: Doc, suite: Suite, shots: Sequence[Doc]) -> list[Request]:
    prompt = suite.prompt
    return [
        {
            "context": with_solved_shots(doc, suite, shots),
            "continuation": prompt.delimiter + filled(prompt.target, doc, suite),
        }
    ]


def _row(doc: Doc, suite: Suite, answers: Sequence[Answer]) -> Row:
    (answer,) = answers
    return {
        "expected": filled(suite.prompt.target, doc, suite),
        "acc": float(answer["is_greedy"]),
        "nats": -float(answer["logprob"]),
    }


KIND = EvalKind(
    request="loglikelihood",
    load=json_docs,
    requests=_requests,
    row=_row,
    metrics={
        "acc": MetricKind(mean_of("acc")),
        "perplexity": MetricKind(exponential_of_mean("nats"), higher_is_better=False),
    },
    prompted=True,
)
