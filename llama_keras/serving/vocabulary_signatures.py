"""Texts to ids and ids to bytes as signatures, so that a server needs no tokenizer of its own.

Axes: B texts, T tokens of the longest, N ids.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from llama_keras.serving.signature_parts import text_features


def vocabulary_signatures(tokenizer) -> dict[str, Callable]:
    """Gives `tokenize` and `vocabulary`.

    `tokenize`: `text` string `(B,)` → `token_ids` int32 `(B, T)`, -1 after a text's end, and
    `start` and `end` int32 `(B, T)`, the bytes of the text that a token stands for. Special tokens
    in a text are plain text, and the ids that begin or end a text are left out: the manifest's
    `vocabulary` tells of them.
    `vocabulary`: `token_ids` int32 `(N,)` → `piece_bytes` string `(N,)`.

    Args:
        tokenizer: a `text.Tokenizer`.
    """
    texts = tokenizer.graph.texts

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def tokenize(text):
        found = tokenizer.graph.tokenize_with_offsets(text, add_bos=False, add_eos=False)
        return {
            "token_ids": found.ids.to_tensor(-1),
            "start": found.starts.to_tensor(-1),
            "end": found.ends.to_tensor(-1),
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, name="token_ids")])
    def vocabulary(token_ids):
        known = (token_ids >= 0) & (token_ids < texts.size)
        return {"piece_bytes": tf.gather(texts.table, tf.where(known, token_ids, texts.size))}

    return {"tokenize": tokenize, "vocabulary": vocabulary}


def count_signature(model) -> Callable:
    """Gives `count_tokens`: `text` string `(B,)` → `num_tokens` int32 `(B,)`, what the task reads.

    That is after cleaning and cutting, with the ids that begin and end a text.

    Args:
        model: a task that reads texts, see `signature_parts.text_features`.
    """

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def count_tokens(text):
        mask = text_features(model, text)["padding_mask"]
        return {"num_tokens": tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)}

    return count_tokens


def vocabulary_settings(tokenizer, *, start: int) -> dict[str, Any]:
    """Gives what the manifest tells of a tokenizer.

    Args:
        tokenizer: a `text.Tokenizer`.
        start: id that an empty prompt becomes.
    """
    spec = tokenizer.spec
    return {
        "vocabulary_size": tokenizer.vocabulary_size,
        "special_tokens": dict(spec.special_tokens),
        "user_tokens": dict(spec.user_tokens),
        "bos_id": spec.bos_id,
        "eos_id": spec.eos_id,
        "add_bos": spec.add_bos,
        "add_eos": spec.add_eos,
        "start_id": start,
        "end_ids": list(tokenizer.end_ids),
        # SentencePiece puts a space before a text, which is not the text's.
        "strip_space": tokenizer.token_bytes.strip_space,
    }
