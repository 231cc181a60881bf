"""Suites with `task: cloze`: how likely is the one right continuation (LAMBADA and its like).

`acc` is the share of continuations that greedy decoding would give, `perplexity` the exponential of
the mean over examples of the negative sum of log-probabilities: both as in lm-evaluation-harness.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from llama_keras.eval.kinds.kind import (
    EvalKind,
    MetricKind,
    Row,
    filled,
    json_docs,
    mean_of,
    with_shots,
)
from llama_keras.eval.requests import Answer, Doc, Request
from llama_keras.eval.suite import Suite


def _requests(doc: Doc, suite: Suite, shots: Sequence[Doc]) -> list[Request]:
    prompt = suite.prompt

    def solved(shot: Doc) -> str:
        return filled(f"{prompt.context}{prompt.delimiter}{prompt.target}", shot, suite)

    return [
        {
            "context": with_shots(suite, shots, solved, filled(prompt.context, doc, suite)),
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


def _perplexity(rows, suite, seed):
    metric = mean_of("nats")(rows, suite, seed)
    values = {name: float(np.exp(getattr(metric, name))) for name in ("value", "low", "high")}
    return replace(metric, **values)


KIND = EvalKind(
    request="loglikelihood",
    load=json_docs,
    requests=_requests,
    row=_row,
    metrics={
        "acc": MetricKind(mean_of("acc")),
        "perplexity": MetricKind(_perplexity, higher_is_better=False),
    },
    prompted=True,
)
