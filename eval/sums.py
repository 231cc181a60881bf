"""Metrics as functions of sums over examples: what makes resampling them cheap.

A draw of N examples with replacement needs only the sum of their rows of numbers, not the metric
over again. That each metric here equals the one of `kinds` is tested.

Axes: N examples, K numbers an example, C labels, Q queries.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llama_keras.eval.kinds.kind import Row
from llama_keras.eval.kinds.text_classification import BINS, bin_of
from llama_keras.eval.suite import Suite

Finish = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Sums:
    """One metric of one evaluation.

    Attributes:
        values: float `(N, K)`, or `(Q, K)` where the metric counts queries and not examples.
        finish: from sums `(…, K)`, the metric `(…)`.
        is_mean: whether K is 2, a number and whether it counts, and the metric their ratio.
    """

    values: np.ndarray
    finish: Finish
    is_mean: bool = False

    @property
    def value(self) -> float:
        """The metric over all examples."""
        return float(self.finish(self.values.sum(axis=0)))

    @property
    def counts(self) -> np.ndarray:
        """Of a mean, which examples count; bool `(N,)`."""
        return self.values[:, 1] > 0

    @property
    def is_share(self) -> bool:
        """Whether each example that counts is simply right or wrong."""
        return self.is_mean and bool(np.isin(self.values[self.counts, 0], (0.0, 1.0)).all())


Maker = Callable[[Sequence[Row], Suite], Sums]


def sums_of(name: str, rows: Sequence[Row], suite: Suite) -> Sums | None:
    """Gives a metric of a suite as sums; None where the metric is none of sums.

    Raises:
        KeyError: the rows lack what the metric is made of.
    """
    maker = _MAKERS[suite.task].get(name)
    return None if maker is None else maker(rows, suite)


def _ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / np.maximum(sums[..., 1], 1)


def _mean(key: str) -> Maker:
    def make(rows: Sequence[Row], suite: Suite) -> Sums:
        found = [row[key] for row in rows]
        values = [(0.0, 0.0) if value is None else (float(value), 1.0) for value in found]
        return Sums(np.array(values).reshape(-1, 2), _ratio, is_mean=True)

    return make


def _exp_mean(key: str) -> Maker:
    def make(rows: Sequence[Row], suite: Suite) -> Sums:
        return Sums(_mean(key)(rows, suite).values, lambda sums: np.exp(_ratio(sums)))

    return make


def _of_labels(finish: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]) -> Maker:
    """`finish` takes hits, right labels and given labels, each `(R, C)`."""

    def make(rows: Sequence[Row], suite: Suite) -> Sums:
        from llama_keras.eval.kinds.text_classification import labels_of

        number = {label: index for index, label in enumerate(labels_of(suite, rows))}
        marks = np.zeros((3, len(rows), len(number)))
        for at, row in enumerate(rows):
            for kind, key in ((1, "expected"), (2, "predicted")):
                given = row[key] if isinstance(row[key], list) else [row[key]]
                marks[kind, at, [number[label] for label in given]] = 1
        marks[0] = marks[1] * marks[2]

        def of_sums(sums: np.ndarray) -> np.ndarray:
            parts = np.split(sums.reshape(-1, sums.shape[-1]), 3, axis=1)
            return finish(*parts).reshape(sums.shape[:-1])

        return Sums(np.concatenate(marks, axis=1), of_sums)

    return make


def _f1(average: str):
    def finish(hits: np.ndarray, right: np.ndarray, given: np.ndarray) -> np.ndarray:
        from llama_keras.eval.label_set_metrics import f1_of_counts

        return f1_of_counts(hits, right + given, average=average)

    return finish


def _mcc(hits: np.ndarray, right: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Matthews correlation of C classes (Gorodkin 2004); 0 where nothing varies."""
    n, product = right.sum(axis=1), (right * given).sum(axis=1)
    spread = (n**2 - (right**2).sum(axis=1)) * (n**2 - (given**2).sum(axis=1))
    shared = hits.sum(axis=1) * n - product
    return np.divide(shared, np.sqrt(spread), out=np.zeros_like(n), where=spread > 0)


def _micro_f1(rows: Sequence[Row], suite: Suite) -> Sums:
    # Of single labels it is the share of right ones.
    maker = _of_labels(_f1("micro")) if suite.data.multi_label else _mean("correct")
    return maker(rows, suite)


def _calibration_error(rows: Sequence[Row], suite: Suite) -> Sums:
    confidence = np.array([row["confidence"] for row in rows])
    gaps = np.array([row["correct"] for row in rows], float) - confidence
    values = np.zeros((len(rows), BINS + 1))
    values[np.arange(len(rows)), bin_of(confidence)] = gaps
    values[:, -1] = 1
    return Sums(values, lambda sums: np.abs(sums[..., :-1]).sum(-1) / np.maximum(sums[..., -1], 1))


def _entities(name: str) -> Maker:
    def make(rows: Sequence[Row], suite: Suite) -> Sums:
        from llama_keras.eval.entity_metrics import NAMES, entity_counts, scores_of_counts

        counts = entity_counts(*([row[key] for row in rows] for key in ("expected", "predicted")))
        at = NAMES.index(name)
        return Sums(counts.astype(float), lambda sums: scores_of_counts(sums)[at])

    return make


def _per(unit: str, finish: Finish = np.exp) -> Maker:
    def make(rows: Sequence[Row], suite: Suite) -> Sums:
        values = np.array([[row["nats"], row[unit]] for row in rows], float)
        return Sums(values, lambda sums: finish(_ratio(sums)))

    return make


def _sacrebleu(name: str) -> Maker:
    def make(rows: Sequence[Row], suite: Suite) -> Sums:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF

        metric: Any = {"bleu": BLEU, "chrf": CHRF}[name]()
        # What sacrebleu's own paired tests use; it has no public name.
        statistics = metric._extract_corpus_statistics(
            [row["predicted"] for row in rows], [[row["expected"] for row in rows]]
        )

        def finish(sums: np.ndarray) -> np.ndarray:
            flat = sums.reshape(-1, sums.shape[-1]).round().astype(int).tolist()
            scores = [metric._compute_score_from_stats(row).score for row in flat]
            return np.array(scores).reshape(sums.shape[:-1])

        return Sums(np.array(statistics, float), finish)

    return make


def _retrieval(score: Callable[[list[int]], float]) -> Maker:
    def make(rows: Sequence[Row], suite: Suite) -> Sums:
        from llama_keras.eval.kinds.retrieval import search
        from llama_keras.eval.retrieval import ranks

        made = search(rows)
        scores = [(float(score(found)), 1.0) for found in ranks(made.cosines, made.relevant)]
        return Sums(np.array(scores), _ratio, is_mean=True)

    return make


def _recall(cutoff: int) -> Maker:
    return _retrieval(lambda found: float(np.mean([rank <= cutoff for rank in found])))


# Task -> metric -> what makes its sums.
_MAKERS: dict[str, dict[str, Maker]] = {
    "text_classification": {
        "accuracy": _mean("correct"),
        "subset_accuracy": _mean("correct"),
        "micro_f1": _micro_f1,
        "f1": _of_labels(_f1("macro")),
        "mcc": _of_labels(_mcc),
        "ece": _calibration_error,
    },
    "token_classification": {name: _entities(name) for name in ("precision", "recall", "f1")},
    "question_answering": {
        name: _mean(name) for name in ("exact_match", "f1", "has_answer_f1", "no_answer_accuracy")
    },
    "multiple_choice": {
        **{name: _mean(name) for name in ("acc", "acc_norm", "acc_bytes")},
        "choice_perplexity": _exp_mean("choice_perplexity"),
    },
    "cloze": {"acc": _mean("acc"), "perplexity": _exp_mean("nats")},
    "perplexity": {
        "word_perplexity": _per("words"),
        "byte_perplexity": _per("bytes"),
        "bits_per_byte": _per("bytes", lambda nats: nats / np.log(2)),
        "token_perplexity": _per("tokens"),
    },
    "generation": {
        "exact_match": _mean("exact_match"),
        "bleu": _sacrebleu("bleu"),
        "chrf": _sacrebleu("chrf"),
    },
    "retrieval": {
        "recall@1": _recall(1),
        "recall@10": _recall(10),
        "mrr": _retrieval(lambda found: 1 / found[0]),
    },
}
