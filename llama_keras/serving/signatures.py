"""What each task answers to when it is served: the graph functions behind the signatures.

Axes: B texts, T tokens, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
import tensorflow as tf

_EXAMPLE = {
    "text": "A warm, funny and moving film.",
    "text_pair": "The audience laughed and cried.",
}


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


def _features(tokenizer, text, *, limit: int, cleaning):
    """Cleans, tokenizes, cuts and pads as `TextClassifier.token_rows` does."""
    text = text if cleaning is None else cleaning(text)
    return _padded(tokenizer.graph.tokenize(text)[:, :limit], pad_id=tokenizer.pad_id)


def _padded(rows, *, pad_id: int):
    """Gives ragged token ids `(B, None)` as features."""
    # An empty text still gets an answer: that of a lone padding token.
    lengths = tf.maximum(rows.row_lengths(), 1)
    width = tf.maximum(tf.reduce_max(lengths), 1)
    token_ids = rows.to_tensor(pad_id, shape=tf.stack([-1, width]))
    mask = tf.sequence_mask(lengths, width, dtype=tf.int32)
    return {"token_ids": token_ids, "padding_mask": mask}


def text_classifier_signatures(model) -> Signatures:
    """Gives `serving_default` and `classify` (text to labels) and `tokens` (ids to logits).

    Inputs and outputs, all with the batch B first:
        `text` string `(B,)`, for a model of pairs also `text_pair` string `(B,)` → `label` string
        `(B,)`, `score` float32 `(B,)`, `scores` float32 `(B, C)` in the order of the manifest's
        labels; of a model with several labels a text `scores` and `chosen` bool `(B, C)`, whether a
        score is above the threshold (which the manifest tells, too).
        `token_ids`, `padding_mask` int32 `(B, T)` → `logits` float32 `(B, C)`.
    """
    tokenizer, limit = model.tokenizer, model.max_sequence_length
    pairs = model.pair_tokenizer() if model.pairs else None
    answer = _label_sets(model.threshold) if model.multi_label else _one_label(model.labels)

    cleaning, names = model.cleaning, ("text", "text_pair") if pairs else ("text",)

    def features_of(text, text_pair):
        if pairs is None:
            return _features(tokenizer, text, limit=limit, cleaning=cleaning)
        texts = (part if cleaning is None else cleaning(part) for part in (text, text_pair))
        return _padded(pairs(*texts)[0], pad_id=tokenizer.pad_id)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name=n) for n in names])
    def classify(text, text_pair=None):
        return answer(model(features_of(text, text_pair), training=False))

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
        example_text={name: _EXAMPLE[name] for name in names},
        cleaning=tuple(cleaning.get_config()["steps"]) if cleaning else (),
        settings={"threshold": model.threshold} if model.multi_label else {},
    )


def _one_label(labels) -> Callable:
    names = np.array([label.encode() for label in map(str, labels)], dtype=object)

    def answer(logits):
        scores = tf.nn.softmax(logits)
        return {
            "label": tf.gather(tf.constant(names, tf.string), tf.argmax(scores, axis=-1)),
            "score": tf.reduce_max(scores, axis=-1),
            "scores": scores,
        }

    return answer


def _label_sets(threshold: float) -> Callable:
    def answer(logits):
        scores = tf.sigmoid(logits)
        return {"scores": scores, "chosen": scores > threshold}

    return answer


def _of(head: str) -> Callable[..., Signatures]:
    """Gives the maker of signatures_HEAD.py, which is loaded by its first use: it imports this."""

    def make(model, **settings) -> Signatures:
        module = import_module(f"llama_keras.serving.signatures_{head}")
        return getattr(module, f"{head}_signatures")(model, **settings)

    return make


# task class name -> what makes its signatures
SIGNATURES: dict[str, Callable[..., Signatures]] = {
    "CausalLM": _of("causal_lm"),
    "Embedder": _of("embedder"),
    "QuestionAnswerer": _of("question_answerer"),
    "TextClassifier": text_classifier_signatures,
    "TokenClassifier": _of("token_classifier"),
}
# task class name -> settings of `export` that its maker takes; others take none
EXPORT_SETTINGS = {
    "CausalLM": ("max_new_tokens", "temperature", "top_k", "top_p", "seed", "stop", "jit_compile"),
}
