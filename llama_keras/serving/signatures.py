"""What each task answers to when it is served: the graph functions behind the signatures.

Axes: B texts, T tokens, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class Signatures:
    """The signatures of one export.

    Attributes:
        task: name of the kind of task, for the manifest.
        functions: name to a `tf.function` with a fixed input signature.
        trackables: tables and resources, besides the weights, that the functions need.
        labels: class names in the order of `scores`.
        example_text: what is asked to record a true answer in the manifest.
        cleaning: the steps that text goes through inside the graph, for the manifest.
    """

    task: str
    functions: dict[str, Callable]
    trackables: dict[str, Any]
    labels: tuple[str, ...]
    example_text: str
    cleaning: tuple[dict[str, Any], ...] = ()


def _features(tokenizer, text, *, limit: int, cleaning):
    """Cleans, tokenizes, cuts and pads as `TextClassifier.token_rows` does."""
    text = text if cleaning is None else cleaning(text)
    rows = tokenizer.graph.tokenize(text)[:, :limit]
    # An empty text still gets an answer: that of a lone padding token.
    lengths = tf.maximum(rows.row_lengths(), 1)
    width = tf.maximum(tf.reduce_max(lengths), 1)
    token_ids = rows.to_tensor(tokenizer.pad_id, shape=tf.stack([-1, width]))
    mask = tf.sequence_mask(lengths, width, dtype=tf.int32)
    return {"token_ids": token_ids, "padding_mask": mask}


def text_classifier_signatures(model) -> Signatures:
    """Gives `serving_default` and `classify` (text to label) and `tokens` (ids to logits).

    Inputs and outputs, all with the batch B first:
        `text` string `(B,)` → `label` string `(B,)`, `score` float32 `(B,)`, `scores` float32
        `(B, C)` in the order of the manifest's labels.
        `token_ids`, `padding_mask` int32 `(B, T)` → `logits` float32 `(B, C)`.
    """
    tokenizer, cleaning = model.tokenizer, model.cleaning
    limit = model.max_sequence_length
    label_names = np.array([label.encode() for label in map(str, model.labels)], dtype=object)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def classify(text):
        features = _features(tokenizer, text, limit=limit, cleaning=cleaning)
        logits = model(features, training=False)
        scores = tf.nn.softmax(logits)
        return {
            "label": tf.gather(tf.constant(label_names, tf.string), tf.argmax(scores, axis=-1)),
            "score": tf.reduce_max(scores, axis=-1),
            "scores": scores,
        }

    ids = [tf.TensorSpec([None, None], tf.int32, name=n) for n in ("token_ids", "padding_mask")]

    @tf.function(input_signature=ids)
    def tokens(token_ids, padding_mask):
        features = {"token_ids": token_ids, "padding_mask": padding_mask}
        return {"logits": model(features, training=False)}

    return Signatures(
        task="text_classification",
        functions={"serving_default": classify, "classify": classify, "tokens": tokens},
        trackables={"tokenizer": tokenizer.graph},
        labels=tuple(map(str, model.labels)),
        example_text="A warm, funny and moving film.",
        cleaning=tuple(cleaning.get_config()["steps"]) if cleaning else (),
    )


# task class name -> what makes its signatures
SIGNATURES = {"TextClassifier": text_classifier_signatures}
