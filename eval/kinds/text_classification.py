"""Suites with `task: text_classification`: a fine-tuned classifier gives labels.

`f1` is the unweighted mean over the classes; `ece` is the expected calibration error over ten bins
of the given label's probability (arXiv 1706.04599). A suite with `data.multi_label` has
`subset_accuracy`, `f1` and `micro_f1` of sets of labels.
"""

from collections.abc import Sequence

import numpy as np

from llama_keras.errors import InputError
from llama_keras.eval.kinds.kind import RESAMPLES, EvalKind, MetricKind, Row
from llama_keras.eval.metrics import METRICS, Metric, compute_metrics
from llama_keras.eval.requests import Answer, Doc, Request
from llama_keras.eval.suite import Suite

BINS = 10


def _load(suite: Suite, source: str, split: str | None) -> list[Doc]:
    from llama_keras.data import load_classification

    columns = suite.data
    data = load_classification(
        source,
        split=split,
        text_column=columns.text_column,
        label_column=columns.label_column,
        names_column=columns.names_column,
        pairs=columns.pairs,
        multi_label=columns.multi_label,
        data_dir=columns.data_dir,
    )
    return [
        {"text": list(text) if isinstance(text, tuple) else text, "label": label}
        for text, label in zip(data.texts, data.labels, strict=True)
    ]


def _requests(doc: Doc, suite: Suite, shots: Sequence[Doc]) -> list[Request]:
    return [{"text": doc["text"]}]


def _row(doc: Doc, suite: Suite, answers: Sequence[Answer]) -> Row:
    (answer,) = answers
    if suite.data.multi_label:
        if "labels" not in answer:
            raise InputError(
                f"{suite.name} asks for lists of labels, and the model gives one label a text."
            )
        found, right = sorted(answer["labels"]), sorted(doc["label"])
        _check_given(found, suite)
        return {"expected": right, "predicted": found, "correct": found == right}
    if "label" not in answer:
        raise InputError(
            f"{suite.name} asks for one label a text, and the model gives lists of labels; set "
            "data.multi_label."
        )
    _check_given([answer["label"]], suite)
    return {
        "expected": doc["label"],
        "predicted": answer["label"],
        "correct": answer["label"] == doc["label"],
        "confidence": float(answer["score"]),
    }


def _check_given(found: Sequence[str], suite: Suite) -> None:
    """Refuses what a model that does not tell its labels makes up."""
    _compare(found, suite.labels or found, "An answer of the model")


def labels_of(suite: Suite, rows: Sequence[Row]) -> list[str]:
    """Gives the suite's labels, or those that occur."""
    if suite.labels is not None:
        return suite.labels
    return _distinct([row[name] for row in rows for name in ("expected", "predicted")])


def _distinct(items: Sequence[str | list[str]]) -> list[str]:
    return sorted({x for item in items for x in (item if isinstance(item, list) else [item])})


def _single(name: str) -> MetricKind:
    def compute(rows: Sequence[Row], suite: Suite, seed: int) -> Metric:
        if suite.data.multi_label:
            return _of_sets(name, rows, suite, seed)
        if name not in METRICS:
            raise InputError(f"{suite.name}: {name} is for texts with several labels.")
        expected = [row["expected"] for row in rows]
        predicted = [row["predicted"] for row in rows]
        labels = labels_of(suite, rows)
        found = compute_metrics(expected, predicted, labels=labels, names=[name], seed=seed)
        return found[name]

    return MetricKind(compute)


def _of_sets(name: str, rows: Sequence[Row], suite: Suite, seed: int) -> Metric:
    from llama_keras.eval.label_set_metrics import label_set_metrics

    expected, predicted = ([row[key] for row in rows] for key in ("expected", "predicted"))
    found = label_set_metrics(expected, predicted, labels=labels_of(suite, rows), seed=seed)
    if name not in found:
        raise InputError(f"{suite.name}: texts with several labels have {list(found)}, not {name}.")
    return found[name]


def bin_of(confidence: np.ndarray) -> np.ndarray:
    """Gives the number of each confidence's bin; the upper edge is its own, as in the paper."""
    return np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)


def calibration(rows: Sequence[Row]) -> list[dict[str, float]]:
    """Gives for each bin that holds answers its mean confidence, its share of right ones, its n."""
    confidence = np.array([row["confidence"] for row in rows])
    correct = np.array([row["correct"] for row in rows], float)
    bins = bin_of(confidence)
    return [
        {
            "confidence": float(confidence[bins == bin_].mean()),
            "accuracy": float(correct[bins == bin_].mean()),
            "n": int((bins == bin_).sum()),
        }
        for bin_ in range(BINS)
        if (bins == bin_).any()
    ]


def _ece(rows: Sequence[Row], suite: Suite, seed: int) -> Metric:
    def error(chosen: Sequence[Row]) -> float:
        parts = calibration(chosen)
        return sum(p["n"] * abs(p["accuracy"] - p["confidence"]) for p in parts) / len(chosen)

    if suite.data.multi_label:
        raise InputError(f"{suite.name}: ece is for one label a text.")
    draws = np.random.default_rng(seed).integers(len(rows), size=(RESAMPLES // 5, len(rows)))
    low, high = np.percentile([error([rows[i] for i in draw]) for draw in draws], [2.5, 97.5])
    return Metric(error(rows), float(low), float(high), "bootstrap")


def _check(suite: Suite, docs: Sequence[Doc], known: list[str] | None) -> None:
    """Data, suite and model must name the same labels."""
    occurring = _distinct([doc["label"] for doc in docs])
    labels = suite.labels or occurring
    _compare(occurring, labels, f"The data of {suite.name}")
    if known is not None:
        _compare(known, labels, "The model")
        _compare(labels, known, f"The suite {suite.name}")


def _compare(found, known, owner: str) -> None:
    if unknown := sorted(set(found) - set(known)):
        raise InputError(
            f"{owner} has the labels {sorted(set(found))}, but {unknown} are not among "
            f"{list(known)}; data, suite and model must name the same labels."
        )


KIND = EvalKind(
    request="classify",
    load=_load,
    requests=_requests,
    row=_row,
    metrics={
        **{name: _single(name) for name in (*METRICS, "subset_accuracy")},
        "ece": MetricKind(_ece, higher_is_better=False),
    },
    check=_check,
    labels=lambda docs: _distinct([doc["label"] for doc in docs]),
)
