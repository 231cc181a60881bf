"""What a `TextClassifier` answers to when it is served.

Axes: B texts, T tokens, C classes.
"""

from collections.abc import Callable

import tensorflow as tf

from llama_keras.data.token_windows import padded
from llama_keras.serving.signature_parts import (
    Signatures,
    cleaning_steps,
    label_bytes,
    text_features,
    tokens_signature,
)

_EXAMPLE = {
    "text": "A warm, funny and moving film.",
    "text_pair": "The audience laughed and cried.",
}


def text_classifier_signatures(model) -> Signatures:
    """Gives `serving_default` and `classify` (text to labels) and `tokens` (ids to logits).

    Inputs and outputs, all with the batch B first:
        `text` string `(B,)`, for a model of pairs also `text_pair` string `(B,)` → `label` string
        `(B,)`, `score` float32 `(B,)`, `scores` float32 `(B, C)` in the order of the manifest's
        labels; of a model with several labels a text `scores` and `chosen` bool `(B, C)`, whether a
        score is above the threshold (which the manifest tells, too).
        `token_ids`, `padding_mask` int32 `(B, T)` → `logits` float32 `(B, C)`.
    """
    tokenizer, cleaning = model.tokenizer, model.cleaning
    pairs = model.pair_tokenizer() if model.pairs else None
    answer = _label_sets(model.threshold) if model.multi_label else _one_label(model.labels)

    names = ("text", "text_pair") if pairs else ("text",)

    def features_of(text, text_pair):
        if pairs is None:
            return text_features(model, text)
        texts = (part if cleaning is None else cleaning(part) for part in (text, text_pair))
        return padded(pairs(*texts)[0], tokenizer.pad_id)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name=n) for n in names])
    def classify(text, text_pair=None):
        return answer(model(features_of(text, text_pair), training=False))

    return Signatures(
        task="text_classification",
        functions={
            "serving_default": classify,
            "classify": classify,
            "tokens": tokens_signature(model),
        },
        trackables={"tokenizer": tokenizer.graph},
        labels=tuple(map(str, model.labels)),
        example_text={name: _EXAMPLE[name] for name in names},
        cleaning=cleaning_steps(model),
        settings={"threshold": model.threshold} if model.multi_label else {},
    )


def _one_label(labels) -> Callable:
    names = label_bytes(labels)

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
