"""Suites with `task: retrieval`: does a text's vector find the one that belongs to it?

Every anchor searches the positives and negatives of the whole suite by cosine.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llama_keras.eval.kinds.kind import EvalKind, MetricKind, Row
from llama_keras.eval.requests import Answer, Doc, Request
from llama_keras.eval.suite import Suite


def _load(suite: Suite, source: str, split: str | None) -> list[Doc]:
    from llama_keras.data.pair_files import load_pairs

    return [{"texts": list(row)} for row in load_pairs(source, split=split).rows]


def _requests(doc: Doc, suite: Suite, shots: Sequence[Doc]) -> list[Request]:
    return [{"text": text} for text in doc["texts"]]


def _row(doc: Doc, suite: Suite, answers: Sequence[Answer]) -> Row:
    return {"texts": doc["texts"], "vectors": [answer["embedding"] for answer in answers]}


@dataclass(frozen=True)
class Search:
    """What is searched for what; Q queries, M documents.

    Attributes:
        queries, documents: each text once.
        cosines: float `(Q, M)`.
        relevant: for each query the numbers of its documents.
    """

    queries: list[str]
    documents: list[str]
    cosines: np.ndarray
    relevant: list[set[int]]


def search(rows: Sequence[Row]) -> Search:
    """Gives the search that the rows of a suite make together."""
    vectors = {t: v for row in rows for t, v in zip(row["texts"], row["vectors"], strict=True)}
    documents = list(dict.fromkeys(text for row in rows for text in row["texts"][1:]))
    number = {text: index for index, text in enumerate(documents)}
    relevant: dict[str, set[int]] = {}
    for row in rows:
        relevant.setdefault(row["texts"][0], set()).add(number[row["texts"][1]])
    queries, found = (_unit([vectors[t] for t in texts]) for texts in (relevant, documents))
    return Search(list(relevant), documents, queries @ found.T, list(relevant.values()))


def _metric(name: str) -> MetricKind:
    def compute(rows: Sequence[Row], suite: Suite, seed: int):
        from llama_keras.eval.retrieval import retrieval_metrics

        made = search(rows)
        return retrieval_metrics(made.cosines, made.relevant, seed=seed)[name]

    return MetricKind(compute)


def _unit(vectors) -> np.ndarray:
    array = np.array(vectors, "float64")
    return array / np.maximum(np.linalg.norm(array, axis=1, keepdims=True), 1e-12)


KIND = EvalKind(
    request="embed",
    load=_load,
    requests=_requests,
    row=_row,
    metrics={name: _metric(name) for name in ("recall@1", "recall@10", "mrr")},
)
