"""Run a model over batches of texts, tracing its graph once for all lengths.

Axes: N texts, B batch, T tokens.
"""

import sys
from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf
from rich.progress import track

from llama_keras.data.bucketing import TokenRows, inference_batches

_FEATURES = [
    tf.TensorSpec([None, None], tf.int32, name=name) for name in ("token_ids", "padding_mask")
]


def graph_of(model: Callable) -> Callable:
    """Gives `model` as one graph for token features of any batch and length.

    `keras.Model.predict` would trace a new graph for each of the first few shapes, which costs
    more than the work itself for a deep model on a small set.

    Args:
        model: takes `{"token_ids", "padding_mask"}`, int32 `(B, T)`.
    """
    if keras.backend.backend() != "tensorflow":
        return model

    @tf.function(input_signature=_FEATURES, autograph=False)
    def run(token_ids, padding_mask):
        return model({"token_ids": token_ids, "padding_mask": padding_mask})

    return lambda features: run(features["token_ids"], features["padding_mask"])


def with_progress(batches: Iterable, title: str, *, total: int) -> Iterable:
    """Gives the batches, under a progress bar where there is a title and a terminal."""
    hidden = not (title and sys.stderr.isatty())
    return track(batches, title, total=total, disable=hidden, transient=True)


def run_rows(graph: Callable, rows: TokenRows, *, batch_size: int, title: str = "") -> list:
    """Gives the outputs for all texts, in the texts' order.

    Args:
        graph: from `graph_of`; gives one tensor `(B, …)` or a list of them.
        rows: the texts.
        batch_size: texts in a batch.
        title: shows a progress bar of that name where people look.

    Returns:
        A list with one float32 array `(N, …)` for each output.
    """
    dataset, order = inference_batches(
        TokenRows(rows.token_ids, rows.pad_id), batch_size=batch_size
    )
    batches = with_progress(dataset, title, total=-(-len(order) // batch_size))
    made = [[np.asarray(x) for x in tf.nest.flatten(graph(batch))] for batch in batches]
    results = []
    for column in zip(*made, strict=True):
        joined = np.concatenate(column).astype("float32")
        result = np.empty_like(joined)
        result[order] = joined
        results.append(result)
    return results
