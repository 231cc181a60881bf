"""Suites with `task: perplexity`: how well a model predicts whole documents.

The document's log-probability is summed over windows that do not overlap in what they score
(lm-evaluation-harness's `get_rolling_token_windows`). `word_perplexity` and `byte_perplexity`
divide by the words (parts between white space) and UTF-8 bytes of the document as it stands,
`bits_per_byte` is the logarithm of the latter to base 2, `token_perplexity` divides by the model's
own tokens and so compares models of one tokenizer only.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

from llama_keras.errors import InputError
from llama_keras.eval.kinds.kind import EvalKind, MetricKind, Row, bootstrap_sums
from llama_keras.eval.requests import Answer, Doc, Request
from llama_keras.eval.suite import Suite

_COLUMNS = ("nats", "words", "bytes", "tokens")


def _load(suite: Suite, source: str, split: str | None) -> list[Doc]:
    from llama_keras.data.files import file_rows, find_file, read_text

    file = find_file(source, split, suffixes=(".txt", ".jsonl", ".csv", ".tsv"))
    if ".txt" not in file.suffixes:
        column = suite.data.text_column
        if not isinstance(column, str):
            raise InputError(f"{suite.name}: data.text_column must be one column.")
        return [{"text": str(row.get(column, ""))} for _, row in file_rows(file)]
    text = read_text(file)
    if suite.data.documents is None:
        return [{"text": text}]
    begin = re.compile(suite.data.documents)
    documents: list[list[str]] = [[]]
    for line in text.splitlines(keepends=True):
        if begin.search(line) and any(part.strip() for part in documents[-1]):
            documents.append([])
        documents[-1].append(line)
    return [{"text": "".join(lines)} for lines in documents]


def _requests(doc: Doc, suite: Suite, shots: Sequence[Doc]) -> list[Request]:
    return [{"text": doc["text"]}]


def _row(doc: Doc, suite: Suite, answers: Sequence[Answer]) -> Row:
    (answer,) = answers
    return {
        "nats": -float(answer["logprob"]),
        # As lm-evaluation-harness counts: re.split gives an empty part at either end, too.
        "words": len(re.split(r"\s+", doc["text"])),
        "bytes": len(doc["text"].encode("utf-8", "surrogatepass")),
        "tokens": int(answer["num_tokens"]),
    }


def _per(unit: str, finish: Callable = np.exp):
    at = _COLUMNS.index(unit)

    def compute(rows: Sequence[Row], suite: Suite, seed: int):
        values = np.array([[row[name] for name in _COLUMNS] for row in rows], float)
        return bootstrap_sums(
            values, lambda sums: finish(sums[..., 0] / np.maximum(sums[..., at], 1)), seed
        )

    return MetricKind(compute, higher_is_better=False)


KIND = EvalKind(
    request="loglikelihood_rolling",
    load=_load,
    requests=_requests,
    row=_row,
    metrics={
        "word_perplexity": _per("words"),
        "byte_perplexity": _per("bytes"),
        "bits_per_byte": _per("bytes", lambda nats: nats / np.log(2)),
        "token_perplexity": _per("tokens"),
    },
)
