"""Logistic regression on the features of one layer: the whole fit of `LinearProbe`.

Axes: N texts, L layers, E model width, C classes.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from rich.progress import track
from sklearn.linear_model import LogisticRegression

from llama_keras.data.bucketing import TokenRows
from llama_keras.data.inference import graph_of, run_rows
from llama_keras.errors import InputError
from llama_keras.layers import Pooling

# Rows that decide which layer is best; more of them would only cost memory (N · L · E floats).
MOST_ROWS_TO_CHOOSE = 8192
PENALTY_TO_CHOOSE = 0.01


def layer_features(backbone, rows: TokenRows, *, pooling: str, layers, batch_size: int):
    """Gives the pooled, normed features after each of some blocks: float32 `(N, L, E)`.

    All layers come out of one forward pass that stops at the last of them.

    Args:
        backbone: a `LlamaBackbone`.
        rows: the texts.
        pooling: see `layers.Pooling`.
        layers: numbers of blocks, counted from 1.
        batch_size: texts in a batch.
    """
    pool = Pooling(pooling, dtype="float32")
    outputs = [
        pool(
            backbone.layer_norm(backbone.transformer_layers[layer - 1].output),
            backbone.input["padding_mask"],
        )
        for layer in layers
    ]
    graph = graph_of(keras.Model(backbone.input, outputs))
    return np.stack(run_rows(graph, rows, batch_size=batch_size, title="features"), axis=1)


class Probe:
    """A logistic regression on standardized features `(N, E)`, and its accuracy."""

    def __init__(self, features, labels, penalty: float):
        self.mean, self.scale = features.mean(axis=0), features.std(axis=0) + 1e-6
        self._solver = LogisticRegression(C=penalty, max_iter=300)
        self._solver.fit((features - self.mean) / self.scale, labels)

    def accuracy(self, features, labels) -> float:
        """Gives the share of right answers."""
        return float(self._solver.score((features - self.mean) / self.scale, labels))

    def dense_weights(self, num_classes: int):
        """Gives the kernel `(E, C)` and bias `(C,)` of a Dense layer on the raw features."""
        kernel = np.zeros((len(self.scale), num_classes), "float32")
        bias = np.full(num_classes, -30.0, "float32")  # a class that training never showed
        weights, intercept = np.asarray(self._solver.coef_), np.asarray(self._solver.intercept_)
        if len(weights) == 1:  # two classes: the solver gives the difference of their logits
            weights, intercept = (
                np.stack([-weights[0], weights[0]]) / 2,
                np.array([-1, 1]) / 2 * intercept[0],
            )
        kernel[:, self._solver.classes_] = (weights / self.scale).T
        bias[self._solver.classes_] = intercept - (weights / self.scale) @ self.mean
        return kernel, bias


@dataclass(frozen=True)
class ProbeFit:
    """What `fit_probe` found.

    Attributes:
        layer: number of blocks to keep.
        kernel: `(E, C)`, of a Dense layer on the pooled, normed output of that block.
        bias: `(C,)`.
        accuracy: on the validation texts.
        by_layer: validation accuracy after each block when the layer was chosen, else empty.
    """

    layer: int
    kernel: np.ndarray
    bias: np.ndarray
    accuracy: float
    by_layer: list[float]


def fit_probe(
    backbone,
    train: TokenRows,
    validation: TokenRows,
    *,
    layer: int | None,
    penalties: Sequence[float],
    pooling: str,
    batch_size: int,
    num_classes: int,
) -> ProbeFit:
    """Solves the head on one block's features.

    Args:
        backbone: a `LlamaBackbone`.
        train: texts and labels to solve by.
        validation: texts and labels to choose by.
        layer: number of blocks, or `None` for the one whose features classify best.
        penalties: values of scikit-learn's `C` to choose from.
        pooling: see `layers.Pooling`.
        batch_size: texts in a batch.
        num_classes: C.

    Raises:
        InputError: the texts to solve by have all the same label.
    """
    _check_labels(train)

    def features(rows, layers):
        return layer_features(backbone, rows, pooling=pooling, layers=layers, batch_size=batch_size)

    by_layer, made = [], None
    if layer is None:
        layers = list(range(1, backbone.config.num_layers + 1))
        parts = [_spread(rows) for rows in (train, validation)]
        _check_labels(parts[0])
        found = [features(part, layers) for part in parts]
        by_layer = _score_layers(found, parts)
        best = int(np.argmax(by_layer))
        layer = layers[best]
        if parts[0] is train and parts[1] is validation:  # nothing was left out
            made = [part[:, best] for part in found]
    if made is None:
        made = [features(rows, [layer])[:, 0] for rows in (train, validation)]
    probes = [Probe(made[0], train.labels, penalty) for penalty in penalties]
    scores = [probe.accuracy(made[1], validation.labels) for probe in probes]
    best = int(np.argmax(scores))
    return ProbeFit(layer, *probes[best].dense_weights(num_classes), scores[best], by_layer)


def _check_labels(rows: TokenRows) -> None:
    if len(set(np.asarray(rows.labels).tolist())) < 2:
        raise InputError(
            f"linear_probe needs texts of two or more labels to solve its head; the "
            f"{len(rows.token_ids)} texts to solve by have one. Give more texts of each label. "
            "Without validation_data a tenth is set aside to choose by: give that, too."
        )


def _score_layers(features, rows) -> list[float]:
    scores = []
    hidden = not sys.stderr.isatty()
    count = features[0].shape[1]
    for index in track(range(count), "choosing the layer", transient=True, disable=hidden):
        probe = Probe(features[0][:, index], rows[0].labels, PENALTY_TO_CHOOSE)
        scores.append(probe.accuracy(features[1][:, index], rows[1].labels))
    return scores


def _spread(rows: TokenRows) -> TokenRows:
    """Gives at most `MOST_ROWS_TO_CHOOSE` rows, evenly spread: files are often sorted by class."""
    count = len(rows.token_ids)
    if count <= MOST_ROWS_TO_CHOOSE:
        return rows
    return rows.take(np.linspace(0, count - 1, MOST_ROWS_TO_CHOOSE).astype(int))
