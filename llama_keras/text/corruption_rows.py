"""What all corruptions share: rows with their masks and random numbers, and the record they give.

Axes: B rows, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf

from llama_keras.errors import InputError
from llama_keras.text import noise


class Corrupted(NamedTuple):
    """Corrupted rows and what an objective needs of the clean ones.

    Padded tensors (B, T) for padded rows, ragged ones (B, None) for ragged rows. The first three
    follow the corrupted rows, which may be shorter; the last three the clean rows as they came.
    """

    token_ids: Any
    """int32; rows that got shorter begin at the left and are filled up with the pad id."""
    padding_mask: Any
    """bool, true where there is a token."""
    source_positions: Any
    """int32, the place in the clean row of the token, or of the first token of the span, that
    stands here; -1 at padding."""
    targets: Any
    """int32, the clean ids."""
    target_mask: Any
    """bool, true where there is a clean token; reconstruction of whole rows counts these."""
    prediction_mask: Any
    """bool, true at the clean tokens that were chosen; masked objectives count these."""


@dataclass(frozen=True, kw_only=True)
class NoiseVocabulary:
    """What corruptions need to know of a vocabulary.

    Attributes:
        size: number of ids.
        mask_id: the id that stands for hidden tokens; needed by all but deletion.
        protected_ids: ids that are never corrupted (begin, end, control tokens).
        sentinel_ids: ids that stand for the first, second, … hidden span, as T5 has them.
        pad_id: fills up rows that got shorter.
    """

    size: int
    mask_id: int | None = None
    protected_ids: tuple[int, ...] = ()
    sentinel_ids: tuple[int, ...] = ()
    pad_id: int = 0

    def __post_init__(self) -> None:
        for field in ("protected_ids", "sentinel_ids"):
            object.__setattr__(self, field, tuple(map(int, getattr(self, field))))
        ids = [*self.protected_ids, *self.sentinel_ids, self.pad_id]
        ids += [] if self.mask_id is None else [self.mask_id]
        wrong = sorted(id_ for id_ in ids if not 0 <= id_ < self.size)
        if wrong:
            raise InputError(f"A vocabulary of {self.size} ids has no id {wrong[0]}.")

    @classmethod
    def of(cls, tokenizer: Any, *, mask_id: int | None = None) -> NoiseVocabulary:
        """Gives that of a `Tokenizer`, whose control tokens are protected.

        Args:
            tokenizer: a `text.Tokenizer`.
            mask_id: Llama's vocabularies have no mask token; choose a control token that texts
                never hold, or an id that the embedding has beyond the tokenizer's.
        """
        known = (*tokenizer.special_tokens.values(), tokenizer.bos_id, tokenizer.eos_id)
        protected = sorted({*known, tokenizer.pad_id} - {None})
        size = max(tokenizer.vocabulary_size, -1 if mask_id is None else mask_id + 1)
        return cls(
            size=size, mask_id=mask_id, protected_ids=tuple(protected), pad_id=tokenizer.pad_id
        )

    def needed_mask_id(self, name: str) -> int:
        """Gives the mask's id.

        Raises:
            InputError: there is none.
        """
        if self.mask_id is None:
            raise InputError(f"{name} needs a mask token; give NoiseVocabulary(mask_id=…).")
        return self.mask_id

    def random_ids(self, bits: tf.Tensor) -> tf.Tensor:
        """Gives int32 ids, all but mask, protected and sentinel ids alike, of uint64 `bits`."""
        left_out = {*self.protected_ids, *self.sentinel_ids}
        left_out |= set() if self.mask_id is None else {self.mask_id}
        if len(left_out) >= self.size:
            raise InputError(
                f"None of the {self.size} ids can stand in for others: all are protected, mask or "
                "sentinel ids. Protect fewer, or set random_rate=0."
            )
        found = noise.below(bits, limit=self.size - len(left_out))
        if not left_out:
            return found
        # The n-th id that is left in: each id left out before it shifts it by one.
        shifts = tf.constant([id_ - at for at, id_ in enumerate(sorted(left_out))], tf.int32)
        flat = tf.reshape(found, [-1])
        return tf.reshape(flat + tf.searchsorted(shifts, flat, side="right"), tf.shape(found))


class Rows:
    """Rows of token ids, padded or ragged, with what corruptions ask of them.

    Args:
        token_ids: (B, T) or ragged (B, None) integers.
        padding_mask: (B, T) bool or integers; None where all are tokens, and for ragged rows.
        index: (B,) int64, the number of each example.
        vocabulary: says which ids are protected.
        seed: of the noise.

    Raises:
        InputError: a shape does not fit.
    """

    def __init__(
        self,
        token_ids: Any,
        *,
        padding_mask: Any,
        index: Any,
        vocabulary: NoiseVocabulary,
        seed: int,
    ) -> None:
        self._is_ragged = isinstance(token_ids, tf.RaggedTensor)
        self._vocabulary = vocabulary
        self._seed = seed
        if self._is_ragged:
            if padding_mask is not None:
                raise InputError("Ragged rows have no padding; leave padding_mask out.")
            lengths = token_ids.row_lengths()
            token_ids = token_ids.to_tensor(vocabulary.pad_id)
            padding_mask = tf.sequence_mask(lengths, tf.shape(token_ids)[1])
            self._lengths = lengths
        self.ids = tf.cast(tf.convert_to_tensor(token_ids), tf.int32)  # (B, T)
        real = tf.ones_like(self.ids) if padding_mask is None else padding_mask
        self.real = tf.cast(tf.convert_to_tensor(real), tf.bool)  # (B, T)
        self._index = tf.cast(tf.convert_to_tensor(index), tf.int64)
        shapes = {"token_ids": (self.ids, 2), "padding_mask": (self.real, 2)}
        for name, (tensor, rank) in {**shapes, "index": (self._index, 1)}.items():
            if tensor.shape.rank != rank:
                raise InputError(f"{name} must have {rank} axes; received shape {tensor.shape}.")
        # Counted from the first token, so that padding on the left changes nothing.
        self._ordinals = tf.maximum(tf.cumsum(tf.cast(self.real, tf.int64), axis=1) - 1, 0)
        self.eligible = self.real & tf.logical_not(_is_in(self.ids, vocabulary.protected_ids))

    @property
    def is_first(self) -> tf.Tensor:
        """(B, T) bool, true at the first token of each row."""
        return self.real & (self._ordinals == 0)

    def bits(self, stream: int) -> tf.Tensor:
        """Gives (B, T) uint64 random numbers."""
        return noise.random_bits(
            self._seed, stream=stream, index=self._index, positions=self._ordinals
        )

    def uniform(self, stream: int) -> tf.Tensor:
        """Gives (B, T) float64 random numbers in [0, 1)."""
        return noise.uniform(self.bits(stream))

    def least(self, draw: tf.Tensor) -> tf.Tensor:
        """Gives (B, T) bool: the eligible token of each row, if it has one, with the least draw."""
        draw = tf.where(self.eligible, draw, tf.ones_like(draw) * 2.0)
        return self.eligible & (draw == tf.reduce_min(draw, axis=1, keepdims=True))

    def unmoved(self, ids: tf.Tensor, *, chosen: tf.Tensor) -> Corrupted:
        """Gives the record of corrupted `ids` (B, T) in the places of the clean ones.

        Args:
            ids: (B, T) int32.
            chosen: (B, T) bool, the clean tokens where the loss counts.
        """
        places = tf.where(self.real, self._columns(), -1)
        parts = (ids, self.real, places, self.ids, self.real, chosen)
        return Corrupted(*map(self._as_given, parts))

    def closed_up(self, ids: tf.Tensor, *, chosen: tf.Tensor, keep: tf.Tensor) -> Corrupted:
        """Gives the record of corrupted `ids` (B, T) of which some places fall out.

        Args:
            ids: (B, T) int32, in the places of the clean ones.
            chosen: (B, T) bool, the clean tokens where the loss counts.
            keep: (B, T) bool, the places that stay; the others close up.
        """
        filled = (
            (ids, self._vocabulary.pad_id),
            (keep, False),
            (self._columns(), -1),
        )
        moved = [self._closed_up(part, keep=keep, fill=fill) for part, fill in filled]
        return Corrupted(*moved, *map(self._as_given, (self.ids, self.real, chosen)))

    def _columns(self) -> tf.Tensor:
        return tf.zeros_like(self.ids) + tf.range(tf.shape(self.ids)[1])[tf.newaxis]

    def _as_given(self, dense: tf.Tensor) -> Any:
        # TensorFlow's type stubs lack the constructors of ragged tensors.
        make: Any = tf.RaggedTensor
        return make.from_tensor(dense, lengths=self._lengths) if self._is_ragged else dense

    def _closed_up(self, dense: tf.Tensor, *, keep: tf.Tensor, fill: Any) -> Any:
        ragged: Any = tf.ragged.boolean_mask(dense, keep)
        if self._is_ragged:
            return ragged
        width = tf.shape(dense)[1]
        return tf.ensure_shape(ragged.to_tensor(fill, shape=tf.stack([-1, width])), dense.shape)


def _is_in(values: tf.Tensor, ids: tuple[int, ...]) -> tf.Tensor:
    if not ids:
        return tf.zeros_like(values, tf.bool)
    known = tf.constant(sorted(set(ids)), tf.int32)
    flat = tf.reshape(values, [-1])
    at = tf.minimum(tf.searchsorted(known, flat), tf.size(known) - 1)
    return tf.reshape(tf.gather(known, at) == flat, tf.shape(values))
