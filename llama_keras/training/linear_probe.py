"""Logistic regression on the features of one layer: the whole fit of `LinearProbe`.

Axes: N texts, L layers, E model width, C classes.
"""

import sys

import keras
import numpy as np
from rich.progress import track
from sklearn.linear_model import LogisticRegression

from llama_keras.data.bucketing import TokenRows
from llama_keras.data.inference import graph_of, run_rows
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


def choose_layer(backbone, train: TokenRows, validation: TokenRows, *, pooling, batch_size):
    """Gives the number of blocks whose features classify the validation set best.

    Returns:
        That number and the validation accuracy after each block, a list of L floats.
    """
    layers = list(range(1, backbone.config.num_layers + 1))
    picked = [_spread_rows(rows, MOST_ROWS_TO_CHOOSE) for rows in (train, validation)]
    made = [
        layer_features(backbone, rows, pooling=pooling, layers=layers, batch_size=batch_size)
        for rows in picked
    ]
    scores = []
    hidden = not sys.stderr.isatty()
    for index in track(range(len(layers)), "choosing the layer", transient=True, disable=hidden):
        probe = Probe(made[0][:, index], picked[0].labels, PENALTY_TO_CHOOSE)
        scores.append(probe.accuracy(made[1][:, index], picked[1].labels))
    return layers[int(np.argmax(scores))], scores


def fit_head(backbone, train, validation, *, pooling, penalties, batch_size, num_classes):
    """Solves the head on the output of `backbone`.

    Returns:
        The kernel `(E, C)`, the bias `(C,)`, and the best validation accuracy.
    """
    layers = [backbone.config.num_layers]
    made = [
        layer_features(backbone, rows, pooling=pooling, layers=layers, batch_size=batch_size)[:, 0]
        for rows in (train, validation)
    ]
    probes = [Probe(made[0], train.labels, penalty) for penalty in penalties]
    scores = [probe.accuracy(made[1], validation.labels) for probe in probes]
    best = int(np.argmax(scores))
    return (*probes[best].dense_weights(num_classes), scores[best])


def _spread_rows(rows: TokenRows, count: int) -> TokenRows:
    if len(rows.token_ids) <= count:
        return rows
    # Evenly spread, since files are often sorted by class.
    picked = np.linspace(0, len(rows.token_ids) - 1, count).astype(int)
    labels = None if rows.labels is None else rows.labels[picked]
    return TokenRows([rows.token_ids[i] for i in picked], rows.pad_id, labels)
