"""Texts of any length as overlapping windows of tokens, in the graph.

Each token is read in the window in which it stands farthest from a cut.

B texts, W windows of all texts, U tokens asked about.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from llama_keras.text.graph import ragged

# Neighbouring windows share this part of their tokens.
OVERLAP = 4


class TokenWindows(NamedTuple):
    """Windows of B texts, and where in them the tokens asked about are read."""

    token_ids: tf.RaggedTensor  # (W, None) int32, none empty
    texts: tf.Tensor  # (W,) int32, number of the text
    starts: tf.Tensor  # (W,) int32, number in its text of the first token
    places: tf.Tensor  # (U, 2) int32, window and column


def token_windows(
    ids: tf.RaggedTensor,
    *,
    asked: tf.Tensor,
    asked_splits: tf.Tensor,
    limit: int,
    pad_id: int,
    first_id: int | None = None,
    last_id: int | None = None,
) -> TokenWindows:
    """Cuts texts into windows that share a quarter of their tokens with the next.

    The last window of a text ends where the text does, so that it is as long as the others. A text
    that fits is one window; a text without tokens is a window of a lone padding token.

    Args:
        ids: (B, None) int32, without ids that begin or end a text.
        asked: (U,) int32, numbers of tokens in their texts, in order.
        asked_splits: (B + 1,) int64, how many of them each text has.
        limit: tokens of a window, `first_id` and `last_id` included.
        pad_id: stands for a text without tokens.
        first_id: begins each window, if given.
        last_id: ends each window, if given.
    """
    before = 0 if first_id is None else 1
    size = max(limit - before - (0 if last_id is None else 1), 1)
    step = size - size // OVERLAP
    lengths = tf.cast(ids.row_lengths(), tf.int32)
    length = tf.minimum(lengths, size)
    counts = tf.maximum(-(-(lengths - size) // step), 0) + 1
    texts = tf.repeat(tf.range(tf.size(lengths)), counts)
    first_window = tf.cumsum(counts, exclusive=True)
    number = tf.range(tf.size(texts)) - tf.gather(first_window, texts)
    starts = tf.minimum(number * step, tf.gather(lengths - length, texts))
    base = tf.cast(tf.gather(ids.row_splits, texts), tf.int32) + starts
    inside = tf.ragged.range(base, base + tf.gather(length, texts))
    rows = inside.with_values(tf.gather(ids.values, inside.values))
    columns = [tf.fill([tf.size(texts), 1], id_) for id_ in (first_id, last_id) if id_ is not None]
    if columns:
        parts = [*columns[:before], rows, *columns[before:]]
        rows = _concat(parts)
    else:
        lone = tf.cast(rows.row_lengths() == 0, tf.int64)
        pads = ragged(tf.fill([tf.reduce_sum(lone)], pad_id), tf.concat([[0], tf.cumsum(lone)], 0))
        rows = _concat([rows, pads])
    windows = _best(texts, starts, tf.gather(length, texts), asked, asked_splits)
    places = tf.stack([windows, asked - tf.gather(starts, windows) + before], axis=1)
    return TokenWindows(rows, texts, starts, places)


def _concat(parts) -> Any:
    """Joins ragged rows (W, None) of several parts."""
    return tf.concat(parts, axis=1)  # TensorFlow's type stubs know no ragged ones


def _best(texts, starts, length, asked, asked_splits):
    """Gives the window (U,) of each token asked about: the middle of an overlap parts them."""
    follows = texts[1:] == texts[:-1]
    middle = (starts[:-1] + length[:-1] + starts[1:] + 1) // 2
    text_of = tf.repeat(tf.range(tf.size(asked_splits) - 1), asked_splits[1:] - asked_splits[:-1])

    def key(text, token):
        return tf.cast(text, tf.int64) * 2**32 + tf.cast(token, tf.int64)

    borders = tf.boolean_mask(key(texts[1:], middle), follows)
    # Each text but the first adds one window to the borders before it.
    passed = tf.searchsorted(borders, key(text_of, asked), side="right")
    return passed + text_of


def padded(token_ids: tf.RaggedTensor, pad_id: int) -> dict[str, tf.Tensor]:
    """Gives ragged (W, None) ids as `token_ids` and `padding_mask`, int32 `(W, T)`.

    A row without ids becomes a lone padding token, so that it gets an answer, too.
    """
    lengths = tf.maximum(token_ids.row_lengths(), 1)
    width = tf.maximum(tf.reduce_max(lengths), 1)
    ids = token_ids.to_tensor(pad_id, shape=tf.stack([-1, width]))
    return {"token_ids": ids, "padding_mask": tf.sequence_mask(lengths, width, dtype=tf.int32)}
