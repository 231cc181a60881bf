"""What the signatures of all tasks are made of.

Axes: B texts, T tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from llama_keras.data.token_windows import padded

# The inputs of token features, in their order.
TOKEN_FEATURES = [
    tf.TensorSpec([None, None], tf.int32, name=name) for name in ("token_ids", "padding_mask")
]


@dataclass(frozen=True)
class Signatures:
    """The signatures of one export.

    Attributes:
        task: name of the kind of task, for the manifest.
        functions: name to a `tf.function` with a fixed input signature.
        trackables: tables and resources, besides the weights, that the functions need.
        labels: class names in the order of `scores`.
        example_text: what is asked to record a true answer in the manifest; texts by the names of
            the inputs where these are not `text` alone.
        cleaning: the steps that text goes through inside the graph, for the manifest.
        settings: what else the manifest tells, such as the threshold of `scores`.
    """

    task: str
    functions: dict[str, Callable]
    trackables: dict[str, Any]
    labels: tuple[str, ...]
    example_text: str | dict[str, str]
    cleaning: tuple[dict[str, Any], ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)


def text_features(model, text) -> dict[str, tf.Tensor]:
    """Cleans, tokenizes, cuts and pads strings `(B,)` as the task does in Python."""
    text = text if model.cleaning is None else model.cleaning(text)
    rows = model.tokenizer.graph.tokenize(text)[:, : model.max_sequence_length]
    return padded(rows, model.tokenizer.pad_id)


def tokens_signature(
    model, *, output: str = "logits", inputs: Sequence[tf.TensorSpec] = TOKEN_FEATURES
) -> Callable:
    """Gives `tokens`: token features, int32 `(B, T)` each, to what the model computes.

    Args:
        model: a task.
        output: the name of that, float32.
        inputs: the features; by default `token_ids` and `padding_mask`.
    """

    @tf.function(input_signature=inputs)
    def tokens(*values):
        features = {spec.name: value for spec, value in zip(inputs, values, strict=True)}
        return {output: tf.cast(model(features, training=False), tf.float32)}

    return tokens


def cleaning_steps(model) -> tuple[dict[str, Any], ...]:
    """Gives the steps of a task's cleaning, for the manifest."""
    return tuple(model.cleaning.get_config()["steps"]) if model.cleaning else ()


def label_bytes(labels) -> np.ndarray:
    """Gives label names as a graph takes them for a constant."""
    return np.array([label.encode() for label in map(str, labels)], dtype=object)
