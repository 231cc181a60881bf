"""The smallest pieces of a text that can be an entity: groups of tokens and their characters.

A unit is a word, or a character of a script without spaces, or a mark of punctuation; tokens that
share one of these make one unit, for a token has one tag. So it begins and ends at a token's
border as well as a word's, and its place in characters is exact. It depends on the text alone:
training and serving cut alike. White space belongs to no unit.

B texts, N tokens of all texts, M characters of all texts, U units of all texts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from llama_keras.text.characters import BLANK, LETTER, MARK, character_ranges
from llama_keras.text.graph import Ids, valid_utf8


class Units(NamedTuple):
    """The units of B texts, in order; all int32 but the splits."""

    row_splits: tf.Tensor  # (B + 1,) int64, units of each text
    starts: tf.Tensor  # (U,) first character in its text, in code points
    ends: tf.Tensor  # (U,) one past the last
    first_tokens: tf.Tensor  # (U,) number of its first token in its text
    last_tokens: tf.Tensor  # (U,)


def find_units(texts: tf.Tensor, tokens: Ids) -> Units:
    """Gives the units of `texts` (B,) from their tokens, with offsets in bytes.

    Args:
        texts: strings, as they went to the tokenizer.
        tokens: what `tokenize_with_offsets` gave for them. Tokens of no width (begin of text, the
            first bytes of a character in SentencePiece) are in no unit.
    """
    codes, offsets = tf.strings.unicode_decode_with_offsets(valid_utf8(texts), "UTF-8")
    rows = tf.cast(codes.value_rowids(), tf.int32)
    atoms, inked = _atoms(codes.values, rows)
    first, last, row, number = _token_characters(texts, tokens, offsets)
    # Only characters that are no white space count: cut a token's own to those.
    first = tf.gather(inked, tf.searchsorted(inked, first))
    passed = tf.searchsorted(inked, last, side="right")
    last = tf.where(passed > 0, tf.gather(inked, tf.maximum(passed - 1, 0)), -1)
    real = first <= last
    first, last, row, number = (tf.boolean_mask(x, real) for x in (first, last, row, number))
    begin, end = tf.gather(atoms, first), tf.gather(atoms, last)
    # Tokens stand in order, so that the one before reached furthest.
    is_new = tf.concat([[True], begin[1:] > end[:-1]], axis=0)[: tf.size(begin)]
    is_last = tf.concat([is_new[1:], [True]], axis=0)[: tf.size(begin)]
    unit_rows = tf.boolean_mask(row, is_new)
    counts = tf.math.bincount(unit_rows, minlength=tf.size(texts), maxlength=tf.size(texts))
    base = tf.cast(tf.gather(codes.row_splits, unit_rows), tf.int32)
    return Units(
        tf.concat([[0], tf.cumsum(tf.cast(counts, tf.int64))], axis=0),
        tf.boolean_mask(first, is_new) - base,
        tf.boolean_mask(last, is_last) + 1 - base,
        tf.boolean_mask(number, is_new),
        tf.boolean_mask(number, is_last),
    )


def _atoms(codes: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Numbers words (M,), and gives the places of all characters but blanks, and one beyond."""
    starts, classes = (tf.constant(x) for x in character_ranges())
    kinds = tf.gather(classes, tf.searchsorted(starts, codes, side="right") - 1)
    before = tf.concat([[BLANK], kinds[:-1]], axis=0)[: tf.size(kinds)]
    same_text = tf.concat([[False], rows[1:] == rows[:-1]], axis=0)[: tf.size(rows)]
    # An accent is of its letter: what follows it goes on with that letter's word.
    places = tf.range(tf.size(kinds))
    is_base = tf.not_equal(kinds, MARK) | tf.logical_not(same_text)
    base = tf.boolean_mask(places, is_base)
    base_of = tf.gather(base, tf.cumsum(tf.cast(is_base, tf.int32)) - 1)
    base_before = tf.concat([[0], base_of[:-1]], axis=0)[: tf.size(base_of)]
    word = (kinds == LETTER) & (tf.gather(kinds, base_before) == LETTER)
    mark = (kinds == MARK) & (before != BLANK)
    goes_on = same_text & (word | mark)
    atoms = tf.cumsum(tf.cast(~goes_on, tf.int32))
    inked = tf.boolean_mask(places, kinds != BLANK)
    beyond = tf.size(kinds)
    return tf.concat([atoms, [beyond + 1]], axis=0), tf.concat([inked, [beyond]], axis=0)


def _token_characters(texts: tf.Tensor, tokens: Ids, offsets: Any):
    """Gives of each token with a width its first and last character (of all M), row and number."""
    sizes = tf.strings.length(valid_utf8(texts))
    base = tf.cumsum(sizes, exclusive=True)
    places = tf.cast(offsets.values, tf.int32) + tf.gather(base, offsets.value_rowids())
    row = tf.cast(tokens.starts.value_rowids(), tf.int32)
    starts = tokens.starts.values + tf.gather(base, row)
    ends = tokens.ends.values + tf.gather(base, row)
    number = tf.range(tf.size(row)) - tf.cast(tf.gather(tokens.ids.row_splits, row), tf.int32)
    wide = ends > starts
    starts, ends, row, number = (tf.boolean_mask(x, wide) for x in (starts, ends, row, number))
    first = tf.searchsorted(places, starts, side="right") - 1
    last = tf.searchsorted(places, ends - 1, side="right") - 1
    return first, last, row, number
