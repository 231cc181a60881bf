"""Questions and contexts of any length as rows of tokens: overlapping windows, made in the graph.

A row is `question, separator, window of the context, separator`. The separator is a control token,
which no text spells, so that the row alone tells where its context is. The question comes first, so
that every token of the context sees it in a causal model too; the last separator sees the whole
row, and is where "no answer in this window" points.

Axes: N pairs of question and context, R rows (the windows of all pairs), T tokens of a row.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf

from llama_keras.errors import InputError
from llama_keras.text.graph import valid_utf8


@dataclass(frozen=True)
class WindowSettings:
    """How contexts are cut.

    Attributes:
        max_sequence_length: tokens of a row.
        max_question_tokens: tokens after which a question is cut.
        max_answer_tokens: tokens of the longest answer that is looked for.
        window_overlap: tokens that a window shares with the next; at least twice
            `max_answer_tokens`, so that every answer lies whole in the window that owns its start.
    """

    max_sequence_length: int
    max_question_tokens: int
    max_answer_tokens: int
    window_overlap: int

    def __post_init__(self):
        if min(self.max_answer_tokens, self.max_question_tokens) < 1:
            raise InputError("max_answer_tokens and max_question_tokens must be at least 1.")
        if self.window_overlap < 2 * self.max_answer_tokens:
            raise InputError(
                f"window_overlap={self.window_overlap} must be at least twice "
                f"max_answer_tokens={self.max_answer_tokens}, or answers between windows are lost."
            )
        needed = self.max_question_tokens + 2 + self.window_overlap + 1
        if self.max_sequence_length < needed:
            raise InputError(
                f"max_sequence_length={self.max_sequence_length} leaves no room for new context: "
                f"max_question_tokens={self.max_question_tokens} and window_overlap="
                f"{self.window_overlap} need at least {needed}."
            )


class Windows(NamedTuple):
    """N pairs as R rows; the rows of a pair stand together, in the order of its context."""

    token_ids: Any
    """Ragged int32 `(R, None)`."""
    pair: tf.Tensor
    """Which pair a row is of, int64 `(R,)`."""
    prefix: tf.Tensor
    """Tokens before the window, int64 `(R,)`."""
    first: tf.Tensor
    """Number, within the context, of the window's first token, int64 `(R,)`."""
    own_from: tf.Tensor
    """Number of the first context token whose answers this row decides, int64 `(R,)`."""
    own_to: tf.Tensor
    """One past the last such token, int64 `(R,)`."""
    starts: Any
    """First byte of each token in `contexts`, ragged int32 `(N, None)`."""
    ends: Any
    """One past its last byte."""
    contexts: tf.Tensor
    """What was tokenized: the contexts as valid UTF-8, cleaned, string `(N,)`."""
    is_cut: tf.Tensor
    """Whether the question was cut, bool `(N,)`."""

    def lengths(self) -> tf.Tensor:
        """Gives the tokens of each row, int64 `(R,)`."""
        return tf.cast(self.token_ids.row_lengths(), tf.int64)


def make_windows(questions, contexts, *, tokenizer, separator_id: int, settings, cleaning=None):
    """Gives the `Windows` of questions and contexts.

    Each token of a context belongs to exactly one window: where two overlap, the cut goes through
    the middle of what they share, so that its neighbours on both sides are seen too.

    Args:
        questions: string `(N,)`.
        contexts: string `(N,)`.
        tokenizer: the `graph` of a `text.Tokenizer`.
        separator_id: stands after the question and after the window.
        settings: how to cut, `WindowSettings`.
        cleaning: a `text.cleaning.Cleaning` that keeps offsets, or None.
    """
    clean = cleaning or (lambda text: text)
    # Data sets ask several questions about one context: tokenize it once.
    distinct, of_pair = tf.unique(contexts)
    distinct = clean(valid_utf8(distinct))
    found = tokenizer.tokenize_with_offsets(distinct, add_bos=False, add_eos=False)
    ids, starts, ends = (tf.gather(part, of_pair) for part in found)
    questions = tokenizer.tokenize(clean(valid_utf8(questions)), add_eos=False)
    asked = questions[:, : settings.max_question_tokens]

    prefixes = tf.cast(asked.row_lengths(), tf.int64) + 1
    room = settings.max_sequence_length - prefixes - 1
    step = room - settings.window_overlap
    sizes = tf.cast(ids.row_lengths(), tf.int64)
    counts = 1 + tf.maximum(sizes - room + step - 1, 0) // step
    pair = tf.repeat(tf.range(tf.size(counts, tf.int64)), counts)
    number = tf.ragged.range(counts).values
    first = number * tf.gather(step, pair)
    size = tf.gather(sizes, pair)
    last = tf.minimum(first + tf.gather(room, pair), size)
    own_from = tf.where(number == 0, first, first + settings.window_overlap // 2)
    is_last = number == tf.gather(counts, pair) - 1
    own_to = tf.where(is_last, size, first + tf.gather(step, pair) + settings.window_overlap // 2)

    begins = tf.gather(tf.cast(ids.row_starts(), tf.int64), pair)
    window = tf.gather(ids.values, tf.ragged.range(begins + first, begins + last))
    separator = tf.fill([tf.size(pair), 1], separator_id)
    return Windows(
        token_ids=tf.concat([tf.gather(asked, pair), separator, window, separator], axis=1),
        pair=pair,
        prefix=tf.gather(prefixes, pair),
        first=first,
        own_from=own_from,
        own_to=own_to,
        starts=starts,
        ends=ends,
        contexts=tf.gather(distinct, of_pair),
        is_cut=questions.row_lengths() > asked.row_lengths(),
    )
