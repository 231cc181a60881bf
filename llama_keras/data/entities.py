"""From texts to what a tagger reads, and from its tags to entities, in the graph.

Training, prediction and the exported model use these same functions.

B texts, W windows, U units of all texts (`text.units`), C tags, E entities of all texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from llama_keras.data.token_windows import TokenWindows, token_windows
from llama_keras.text.units import Units, find_units

# Which token of a unit has its tag.
TAGGED_TOKENS = ("first", "last")


class EncodedTexts(NamedTuple):
    """B texts as windows of tokens, and where their units are."""

    units: Units
    windows: TokenWindows


class Entities(NamedTuple):
    """The entities of B texts, in order."""

    row_splits: tf.Tensor  # (B + 1,) int64, entities of each text
    starts: tf.Tensor  # (E,) int32, first character in the text, in code points
    ends: tf.Tensor  # (E,) int32, one past the last
    labels: tf.Tensor  # (E,) int32, number of the type
    scores: tf.Tensor  # (E,) float32, mean probability of the tags of its units


@dataclass(frozen=True)
class EntityGraph:
    """The graphs around a tagger.

    Attributes:
        tokenizer: a `text.Tokenizer`.
        cleaning: keeps characters in their places, see `Cleaning.preserves_offsets`; or None.
        limit: tokens of a window.
        tagged_token: which token of a unit has its tag, of `TAGGED_TOKENS`.
        begins: C bools, the tags that begin an entity.
        labels: C ints, the type's number of each tag, whatever for `O`, which is tag 0.
    """

    tokenizer: Any
    cleaning: Any
    limit: int
    tagged_token: str
    begins: Sequence[bool]
    labels: Sequence[int]

    @property
    def first_id(self) -> int | None:
        """Id that begins each window, by the tokenizer's own rule."""
        return self.tokenizer.bos_id if self.tokenizer.spec.add_bos else None

    @property
    def last_id(self) -> int | None:
        """Id that ends each window, by the tokenizer's own rule."""
        return self.tokenizer.eos_id if self.tokenizer.spec.add_eos else None

    def encode(self, texts: tf.Tensor) -> EncodedTexts:
        """Gives strings (B,) as windows."""
        texts = texts if self.cleaning is None else self.cleaning(texts)
        tokens = self.tokenizer.graph.tokenize_with_offsets(texts, add_bos=False, add_eos=False)
        units = find_units(texts, tokens)
        windows = token_windows(
            tokens.ids,
            asked=units.first_tokens if self.tagged_token == "first" else units.last_tokens,
            asked_splits=units.row_splits,
            limit=self.limit,
            pad_id=self.tokenizer.pad_id,
            first_id=self.first_id,
            last_id=self.last_id,
        )
        return EncodedTexts(units, windows)

    def entities(self, tags: tf.Tensor, scores: tf.Tensor, units: Units) -> Entities:
        """Gives the entities that legal tags spell.

        Args:
            tags: (U,) int32, of all units in order.
            scores: (U,) float32, of these tags.
            units: of B texts.
        """
        begins, inside = tf.gather(tf.constant(self.begins), tags), tags != 0
        number = tf.boolean_mask(tf.cumsum(tf.cast(begins, tf.int32)) - 1, inside)
        counts = units.row_splits[1:] - units.row_splits[:-1]
        size = tf.cast(tf.size(counts), tf.int32)
        rows = tf.boolean_mask(tf.repeat(tf.range(size), counts), begins)
        by_text = tf.math.bincount(rows, minlength=size, maxlength=size)
        labels = tf.constant(np.asarray(self.labels, "int32"))
        return Entities(
            tf.concat([[0], tf.cumsum(tf.cast(by_text, tf.int64))], axis=0),
            tf.boolean_mask(units.starts, begins),
            tf.math.segment_max(tf.boolean_mask(units.ends, inside), number),
            tf.gather(labels, tf.boolean_mask(tags, begins)),
            tf.math.segment_mean(tf.boolean_mask(scores, inside), number),
        )
