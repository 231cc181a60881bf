"""Start and end logits of all windows to one answer for each question, in the graph.

Each window says how likely a span is against "no answer here": the null position, and spans that
another window owns. If at most one window says otherwise, and windows judge independently, the
probability of a span is its odds over 1 + the sum of the odds of all spans of all windows (over the
sum alone where every question has an answer). So windows of one context are comparable, though each
one's logits are known up to a constant only.

Axes: N pairs, R rows (windows), T tokens of a row, L most tokens of an answer, K best spans.
"""

from typing import NamedTuple

import tensorflow as tf

from llama_keras.data.context_windows import Windows, WindowSettings
from llama_keras.data.row_parts import in_parts
from llama_keras.text.graph import substrings, valid_utf8

# Logit of what cannot be; finite, so that nothing becomes NaN.
NEVER = -1e9
# Rows whose spans are scored at once: all spans of a book's windows would take gigabytes.
_ROWS_AT_ONCE = 64
_OUTER_SPACE = r"[\s\p{Z}]+"


class Answers(NamedTuple):
    """The K best answers to each of N questions, best first.

    Where there are fewer than K spans, the rest has the text "", start and end -1, score 0.
    """

    text: tf.Tensor
    """String `(N, K)`, a part of the raw context without outer white space."""
    start: tf.Tensor
    """Its first character (Unicode code points), int32 `(N, K)`."""
    end: tf.Tensor
    """One past its last character, int32 `(N, K)`."""
    score: tf.Tensor
    """Its probability, float32 `(N, K)`."""
    null_score: tf.Tensor
    """The probability that there is no answer, float32 `(N,)`."""


def best_answers(
    logits, contexts, *, windows: Windows, settings: WindowSettings, count: int, null_answers: bool
) -> Answers:
    """Gives the best answers.

    Args:
        logits: of start and end, float32 `(R, T, 2)`.
        contexts: the raw contexts, string `(N,)`.
        windows: the rows that the logits are of.
        settings: that the rows were made with.
        count: K.
        null_answers: whether "no answer" takes part in the probabilities.
    """
    contexts = tf.convert_to_tensor(contexts, tf.string)
    odds, token, length, total = _row_spans(tf.convert_to_tensor(logits), windows, settings, count)
    pairs = tf.size(contexts, tf.int64)

    def by_pair(values, default, least=1):
        rows = tf.RaggedTensor.from_value_rowids(values, windows.pair, pairs, validate=False)  # pyright: ignore[reportAttributeAccessIssue]
        dense = rows.to_tensor(default)
        dense = tf.reshape(dense, [pairs, tf.size(dense, tf.int64) // tf.maximum(pairs, 1)])
        missing = tf.maximum(least - tf.shape(dense)[1], 0)
        right = tf.stack([0, missing])
        return tf.pad(dense, tf.stack([[0, 0], right]), constant_values=default)

    odds, order = tf.math.top_k(by_pair(odds, NEVER, count), count)
    token = tf.gather(by_pair(token, 0, count), order, batch_dims=1)
    length = tf.gather(by_pair(length, 1, count), order, batch_dims=1)
    total = tf.reduce_logsumexp(by_pair(total[:, tf.newaxis], NEVER), axis=1)
    is_span = odds > NEVER / 2
    text, start, end = _characters(contexts, windows, token, token + length - 1)
    whole = tf.math.softplus(total) if null_answers else total
    return Answers(
        text=tf.where(is_span, text, ""),
        start=tf.where(is_span, start, -1),
        end=tf.where(is_span, end, -1),
        score=tf.where(is_span, tf.exp(odds - whole[:, tf.newaxis]), 0.0),
        null_score=tf.sigmoid(-total),
    )


def _row_spans(logits, windows: Windows, settings: WindowSettings, count: int):
    """Gives of each row its best own spans, as log odds, first token and length `(R, K)`, and the
    log of the sum of the odds of all its own spans `(R,)`.
    """  # noqa: D205
    rows = (windows.prefix, windows.first, windows.own_from, windows.own_to, windows.lengths())
    best = [tf.TensorSpec([None, None], dtype) for dtype in (tf.float32, tf.int64, tf.int64)]
    return in_parts(
        lambda *part: _spans_of(*part, longest=settings.max_answer_tokens, count=count),
        (logits, *rows),
        outputs=[*best, tf.TensorSpec([None], tf.float32)],
        rows_at_once=_ROWS_AT_ONCE,
    )


def _spans_of(logits, prefix, first, own_from, own_to, lengths, *, longest: int, count: int):
    """Gives what `_row_spans` does, of a part of the rows."""
    width = tf.shape(logits)[1]
    position = tf.range(tf.cast(width, tf.int64))[tf.newaxis]
    token = position + (first - prefix)[:, tf.newaxis]
    in_window = (position >= prefix[:, tf.newaxis]) & (position < lengths[:, tf.newaxis] - 1)
    is_own = (token >= own_from[:, tf.newaxis]) & (token < own_to[:, tf.newaxis])
    null = tf.reduce_sum(tf.gather(logits, lengths - 1, batch_dims=1), axis=1)
    logits = tf.where(in_window[:, :, tf.newaxis], logits, NEVER)
    # Every start with each of the L ends that may follow it.
    ends = tf.pad(logits[:, :, 1], [[0, 0], [0, longest - 1]], constant_values=NEVER)
    reach = tf.range(width)[:, tf.newaxis] + tf.range(longest)
    scores = logits[:, :, :1] + tf.gather(ends, reach, axis=1)  # (R, T, L)
    own = (in_window & is_own)[:, :, tf.newaxis]
    others = tf.reduce_logsumexp(tf.where(own, NEVER, scores), axis=[1, 2])
    against = tf.reduce_logsumexp(tf.stack([null, others]), axis=0)
    odds = tf.where(own, scores - against[:, tf.newaxis, tf.newaxis], NEVER)
    flat = tf.reshape(odds, [tf.shape(odds)[0], width * longest])
    best, place = tf.math.top_k(flat, tf.minimum(count, width * longest))
    place = tf.cast(place, tf.int64)
    begin = tf.gather(token, place // longest, batch_dims=1)
    return best, tf.maximum(begin, 0), place % longest + 1, tf.reduce_logsumexp(flat, axis=1)


def _characters(contexts, windows: Windows, first, last):
    """Gives text and characters of the tokens from `first` to `last`, `(N, K)` each.

    Each different context is read once, however many spans of it there are.
    """
    # Counted in what was tokenized, for cleaning may change bytes.
    start, end = _places(
        windows.contexts,
        starts=_values_at(windows.starts, first),
        ends=_values_at(windows.ends, last),
    )
    raw, of_pair = tf.unique(valid_utf8(contexts))
    rows = tf.repeat(of_pair, tf.shape(start)[1])
    text = substrings(raw, rows, tf.reshape(start, [-1]), tf.reshape(end, [-1]))
    text = tf.reshape(text, tf.shape(start))
    # Many tokens hold the space before a word.
    trimmed = tf.strings.regex_replace(text, "^" + _OUTER_SPACE, "")
    start = tf.cast(start, tf.int32) + _length(text) - _length(trimmed)
    text = tf.strings.regex_replace(trimmed, _OUTER_SPACE + "$", "")
    return text, start, start + _length(text)


def _values_at(values, column):
    """Gives what ragged `values` `(N, None)` have in columns `(N, K)`; 0 of an empty row."""
    sizes = tf.cast(values.row_lengths(), tf.int64)[:, tf.newaxis]
    flat = tf.pad(values.values, [[0, 1]])
    place = values.row_splits[:-1, tf.newaxis] + tf.maximum(tf.minimum(column, sizes - 1), 0)
    return tf.where(sizes > 0, tf.gather(flat, place), 0)


def _places(texts, *, starts, ends):
    """Gives the characters of bytes, int64 `(N, K)`: that which holds the first byte, and one past
    that which holds the last, for a token may be a part of a character.

    Args:
        texts: string `(N,)`.
        starts: the first byte, `(N, K)`.
        ends: one past the last.
    """  # noqa: D205
    texts, of_pair = tf.unique(texts)
    _, offsets = tf.strings.unicode_decode_with_offsets(texts, "UTF-8")
    sizes = tf.strings.length(texts)
    before = tf.cumsum(tf.cast(sizes, tf.int64), exclusive=True)
    # Of all texts one after the other, so that one search finds all.
    characters = offsets.values + tf.repeat(before, offsets.row_lengths())
    base = tf.gather(before, of_pair)[:, tf.newaxis]
    first = tf.gather(offsets.row_splits, of_pair)[:, tf.newaxis]

    def number(byte, side):
        place = tf.reshape(base + tf.cast(byte, tf.int64), [-1])
        found = tf.searchsorted(characters, place, side=side, out_type=tf.int64)
        return tf.reshape(found, tf.shape(byte)) - first

    last = tf.gather(offsets.row_lengths(), of_pair)[:, tf.newaxis] - 1
    start = tf.maximum(tf.minimum(number(starts, "right") - 1, last), 0)
    return start, tf.maximum(number(ends, "left"), start)


def _length(text):
    return tf.strings.length(text, unit="UTF8_CHAR")
