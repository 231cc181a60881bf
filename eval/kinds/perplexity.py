"""Suites with `task: perplexity`: how well a model predicts whole documents.

The document's log-probability is summed over windows that do not overlap in what they score
(lm-evaluation-harness's `get_rolling_token_windows`). `word_perplexity` and `byte_perplexity`
divide by the words (parts between white space) and UTF-8 bytes of the document as it stands, before
`data.detokenize`; `bits_per_byte` is the logarithm of the latter to base 2, `token_perplexity`
divides by the model's own tokens and so compares models of one tokenizer only.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from llama_keras.errors import InputError
from llama_keras.eval.kinds.kind import EvalKind, MetricKind, Row, bootstrap_sums
from llama_keras.eval.requests import Answer, Doc, Request
from llama_keras.eval.suite import Suite

_COLUMNS = ("nats", "words", "bytes", "tokens")


def _load(suite: Suite, source: str, split: str | None) -> list[Doc]:
    from llama_keras.data.files import file_rows, find_file, read_text

    file = find_file(source, split, suffixes=(".txt", ".jsonl", ".csv", ".tsv"))
    if ".txt" in file.suffixes:
        return [{"text": text} for text in _documents(read_text(file), suite)]
    column = suite.data.text_column
    if not isinstance(column, str):
        raise InputError(f"{suite.name}: data.text_column must be one column.")
    return [{"text": _text(row, column, f"{file}, {at}")} for at, row in file_rows(file)]


def _documents(text: str, suite: Suite) -> list[str]:
    """Gives a text's documents, as EleutherAI/wikitext_document_level parts WikiText.

    What is empty before the first one is left out, and so is the line break before each.
    """
    if suite.data.documents is None:
        return [text]
    begin = re.compile(suite.data.documents)
    documents: list[list[str]] = [[]]
    # Not splitlines(): that also breaks at U+2028 and the like.
    for line in text.split("\n"):
        if begin.search(line):
            documents.append([])
        documents[-1].append(line)
    joined = ["\n".join(lines) for lines in documents]
    return [document for document in joined if document.strip()]


def _text(row: Mapping[str, Any], column: str, place: str) -> str:
    """Gives a row's text; a conversation's turns one a line."""
    value = row.get(column)
    turns = value if isinstance(value, list) else [value]
    texts = [
        turn.get("text", turn.get("content")) if isinstance(turn, dict) else turn for turn in turns
    ]
    found = [text for text in texts if isinstance(text, str)]
    if not found or len(found) < len(texts):
        raise InputError(
            f"{place}: {column!r} is neither a text nor a list of turns but {str(value)[:60]!r}; "
            f"there are {list(row)}. Name the right one with data.text_column."
        )
    return "\n".join(found)


def _requests(doc: Doc, suite: Suite, shots: Sequence[Doc]) -> list[Request]:
    if suite.data.detokenize == "wikitext":
        from llama_keras.eval.detokenize import detokenize_wikitext

        return [{"text": detokenize_wikitext(doc["text"])}]
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
