"""Suites with `task: token_classification`: entities with their places in the text.

Right is what has exactly the right place and type, as seqeval's strict IOB2 counts.
"""

from collections.abc import Sequence

from llama_keras.errors import InputError
from llama_keras.eval.entity_metrics import NAMES, entity_metrics
from llama_keras.eval.kinds.kind import EvalKind, MetricKind, Row
from llama_keras.eval.requests import Answer, Doc
from llama_keras.eval.suite import Suite


def _load(suite: Suite, source: str, split: str | None) -> list[Doc]:
    from llama_keras.kinds.token_classification import load_sentences
    from llama_keras.tasks.entity_data import as_texts_and_spans

    data, separator = load_sentences(suite.data, source, split), suite.data.word_separator
    docs = []
    for words, targets, place in zip(data.inputs, data.targets, data.places, strict=True):
        try:
            (text,), spans = as_texts_and_spans([words], [targets], separator=separator)
        except InputError as error:
            raise InputError(f"{data.source}, {place}: {error}") from None
        entities = [[span.start, span.end, span.label] for span in (spans or [[]])[0]]
        docs.append({"text": text, "entities": entities})
    return docs


def _row(doc: Doc, suite: Suite, answers: Sequence[Answer]) -> Row:
    (answer,) = answers
    found = [[e["start"], e["end"], e["label"]] for e in answer["entities"]]
    right = [list(entity) for entity in doc["entities"]]
    return {"expected": right, "predicted": found, "correct": sorted(found) == sorted(right)}


def _metric(name: str) -> MetricKind:
    def compute(rows: Sequence[Row], suite: Suite, seed: int):
        expected, found = ([row[key] for row in rows] for key in ("expected", "predicted"))
        return entity_metrics(expected, found, seed=seed)[name]

    return MetricKind(compute)


def _check(suite: Suite, docs: Sequence[Doc], known: list[str] | None) -> None:
    occurring = {entity[2] for doc in docs for entity in doc["entities"]}
    for owner, labels in (("suite", suite.labels), ("model", known)):
        if labels is not None and (unknown := sorted(occurring - set(labels))):
            raise InputError(
                f"The data of {suite.name} have entities of the types {unknown}, which the "
                f"{owner} does not know; it has {labels}."
            )


KIND = EvalKind(
    request="tag",
    load=_load,
    requests=lambda doc, suite, shots: [{"text": doc["text"]}],
    row=_row,
    metrics={name: _metric(name) for name in NAMES},
    check=_check,
)
