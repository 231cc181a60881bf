"""Corrupts token ids at random: masking, deletion and spans, for denoising and masked objectives.

The noise of an example depends on its tokens, the seed and its index alone, neither on the batch,
the padding, the order nor the worker: a resumed run sees the same noise. An index that counts on
over the epochs (epoch · examples + example) gives each epoch noise of its own.

Every row with a token that may be corrupted has at least one that is, unless the rate is 0: an
example without a loss would be wasted. So of n such tokens n · rate + (1 - rate)^n are expected.

Axes: B rows, T tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import tensorflow as tf

from llama_keras.errors import InputError
from llama_keras.text.cleaning_steps import check_choice
from llama_keras.text.corruption_rows import Corrupted, NoiseVocabulary, Rows
from llama_keras.text.named import from_settings, settings_of

# What a random number is drawn for.
_CHOICE, _KIND, _TOKEN, _SPARE = range(4)


class Corruption(Protocol):
    """A way to corrupt rows of token ids."""

    name: ClassVar[str]

    def __call__(
        self, token_ids: Any, *, index: Any, vocabulary: NoiseVocabulary, padding_mask: Any = None
    ) -> Corrupted:
        """Gives corrupted rows.

        Args:
            token_ids: int32 (B, T), padded on either side, or ragged (B, None).
            index: int64 (B,), the number of each example.
            vocabulary: which ids are protected, and which one is the mask.
            padding_mask: bool (B, T), true where there is a token; None where all are, and for
                ragged rows.

        Returns:
            A `Corrupted`: padded where the rows were, ragged where they were.

        Raises:
            InputError: a shape does not fit, or the vocabulary lacks an id that is needed.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class RandomMasking:
    """Hides each token with probability `rate` (BERT, arXiv 1810.04805, section 3.1).

    Of the tokens chosen `mask_rate` become the mask, `random_rate` another token (all but protected
    ones alike), and the rest stays what it is; the loss counts at all of them. The article's plain
    masking is `mask_rate=1, random_rate=0`. Rows keep their length.

    Attributes:
        rate: share of the tokens that are chosen.
        mask_rate: share of these that become the mask.
        random_rate: share of these that become another token.
        seed: of the noise.

    Example:

    ```python
    import tensorflow as tf

    vocabulary = NoiseVocabulary(size=100, mask_id=99, protected_ids=(1,))
    noise = RandomMasking(rate=0.5, mask_rate=1.0, random_rate=0.0)
    rows = tf.constant([[1, 7, 8, 9], [1, 7, 0, 0]])
    mask = tf.constant([[True, True, True, True], [True, True, False, False]])
    found = noise(rows, padding_mask=mask, index=[0, 1], vocabulary=vocabulary)
    assert found.token_ids[1].numpy().tolist() == [1, 99, 0, 0]
    assert (found.targets.numpy() == rows.numpy()).all()
    ```
    """

    name: ClassVar[str] = "random_masking"
    rate: float = 0.15
    mask_rate: float = 0.8
    random_rate: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        _check_share(self.rate, what="random_masking: rate")
        _check_share(self.mask_rate, what="random_masking: mask_rate")
        _check_share(self.random_rate, what="random_masking: random_rate")
        _check_seed(self.seed)
        # A hair of rounding: 0.9 + 0.1 is allowed.
        if self.mask_rate + self.random_rate > 1.0 + 1e-9:
            raise InputError(
                f"random_masking: mask_rate {self.mask_rate} and random_rate {self.random_rate} "
                "make more than 1 together."
            )

    def __call__(
        self, token_ids: Any, *, index: Any, vocabulary: NoiseVocabulary, padding_mask: Any = None
    ) -> Corrupted:
        """Gives corrupted rows; arguments: see `Corruption`."""
        rows = Rows(
            token_ids,
            padding_mask=padding_mask,
            index=index,
            vocabulary=vocabulary,
            seed=self.seed,
        )
        chosen, kind = _choose(rows, rate=self.rate), rows.uniform(_KIND)
        ids = rows.ids
        if self.mask_rate:
            mask_id = vocabulary.needed_mask_id(self.name)
            ids = tf.where(chosen & (kind < self.mask_rate), mask_id, ids)
        if self.random_rate:
            # From the upper end, so that no rounding of a sum leaves a gap between the two.
            others = vocabulary.random_ids(rows.bits(_TOKEN))
            ids = tf.where(chosen & (kind >= 1.0 - self.random_rate), others, ids)
        return rows.unmoved(ids, chosen=chosen)


@dataclass(frozen=True, kw_only=True)
class RandomDeletion:
    """Takes each token out with probability `rate` (denoising autoencoders; arXiv 1910.13461).

    What is left closes up; `source_positions` says where each of it stood. A row never loses all
    its tokens: of a row without protected tokens one always stays, so a row of one token stays as
    it is.

    Attributes:
        rate: share of the tokens that are taken out.
        seed: of the noise.

    Example:

    ```python
    import tensorflow as tf

    noise = RandomDeletion(rate=0.5)
    rows = tf.ragged.constant([[5, 6, 7, 8], [9]])
    found = noise(rows, index=[0, 1], vocabulary=NoiseVocabulary(size=10))
    assert found.token_ids[1].numpy().tolist() == [9]
    places = found.source_positions[0].numpy().tolist()
    assert found.token_ids[0].numpy().tolist() == [5 + place for place in places]
    ```
    """

    name: ClassVar[str] = "random_deletion"
    rate: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        _check_share(self.rate, what="random_deletion: rate")
        _check_seed(self.seed)

    def __call__(
        self, token_ids: Any, *, index: Any, vocabulary: NoiseVocabulary, padding_mask: Any = None
    ) -> Corrupted:
        """Gives corrupted rows; arguments: see `Corruption`."""
        rows = Rows(
            token_ids,
            padding_mask=padding_mask,
            index=index,
            vocabulary=vocabulary,
            seed=self.seed,
        )
        deleted = _choose(rows, rate=self.rate)
        is_left = tf.reduce_any(_without(rows.real, deleted), axis=1, keepdims=True)
        spared = _without(rows.least(rows.uniform(_SPARE)), is_left)
        deleted = _without(deleted, spared)
        return rows.closed_up(rows.ids, chosen=deleted, keep=_without(rows.real, deleted))


@dataclass(frozen=True, kw_only=True)
class SpanCorruption:
    """Hides spans of tokens behind one mask each (T5, arXiv 1910.10683; BART, arXiv 1910.13461).

    Whether a token is hidden follows a two-state Markov chain: each token is hidden with
    probability `rate`, and lengths of spans are geometric with mean `mean_length`, as in SpanBERT
    (arXiv 1907.10529), where T5 fixes the number of spans; so the noise needs no sorting and does
    not depend on the row's length. Two spans have a token between them, and a protected token
    ends a span.

    With `marker="sentinel"` the first span of a row becomes `sentinel_ids[0]`, the second
    `sentinel_ids[1]`, …; spans for which no sentinel is left stay as they are. `targets` are the
    clean rows all the same, not T5's sequence of sentinels and spans.

    Attributes:
        rate: share of the tokens that are hidden; at most mean_length / (mean_length + 1).
        mean_length: mean number of tokens in a span, 1 or more.
        marker: "mask" or "sentinel".
        seed: of the noise.

    Example:

    ```python
    import tensorflow as tf

    noise = SpanCorruption(rate=0.5, mean_length=3.0)
    rows = tf.constant([[10, 11, 12, 13, 14, 15]])
    found = noise(rows, index=[3], vocabulary=NoiseVocabulary(size=100, mask_id=99))
    hidden = found.prediction_mask.numpy()[0]
    assert 99 in found.token_ids.numpy() and hidden.any()
    ```
    """

    name: ClassVar[str] = "span_corruption"
    rate: float = 0.15
    mean_length: float = 3.0
    marker: Literal["mask", "sentinel"] = "mask"
    seed: int = 0

    def __post_init__(self) -> None:
        _check_share(self.rate, what="span_corruption: rate")
        check_choice(self.marker, among=("mask", "sentinel"), what="span_corruption: marker")
        _check_seed(self.seed)
        if not _is_number(self.mean_length) or not 1.0 <= self.mean_length < math.inf:
            raise InputError(
                f"span_corruption: mean_length must be 1 or more; received {self.mean_length!r}."
            )
        most = self.mean_length / (self.mean_length + 1.0)
        if self.rate > most:
            raise InputError(
                f"span_corruption: spans of {self.mean_length:g} tokens with a token between them "
                f"hide at most {most:.3f} of a text; received rate={self.rate:g}."
            )

    def __call__(
        self, token_ids: Any, *, index: Any, vocabulary: NoiseVocabulary, padding_mask: Any = None
    ) -> Corrupted:
        """Gives corrupted rows; arguments: see `Corruption`."""
        rows = Rows(
            token_ids,
            padding_mask=padding_mask,
            index=index,
            vocabulary=vocabulary,
            seed=self.seed,
        )
        hidden = self._hidden(rows)
        is_start = _without(hidden, tf.pad(hidden, [[0, 0], [1, 0]])[:, :-1])
        if self.marker == "mask":
            marks = tf.fill(tf.shape(rows.ids), vocabulary.needed_mask_id(self.name))
        else:
            if not vocabulary.sentinel_ids:
                raise InputError(
                    "span_corruption with marker='sentinel' needs sentinels; give "
                    "NoiseVocabulary(sentinel_ids=…), or take marker='mask'."
                )
            sentinels = tf.constant(vocabulary.sentinel_ids, tf.int32)
            number = tf.cumsum(tf.cast(is_start, tf.int32), axis=1)  # 1 for the first span
            hidden &= number <= tf.size(sentinels)
            is_start &= hidden
            marks = tf.gather(sentinels, tf.clip_by_value(number - 1, 0, tf.size(sentinels) - 1))
        ids = tf.where(is_start, marks, rows.ids)
        return rows.closed_up(
            ids, chosen=hidden, keep=_without(rows.real, _without(hidden, is_start))
        )

    def _hidden(self, rows: Rows) -> tf.Tensor:
        if not self.rate:
            return tf.zeros_like(rows.real)
        inside = _chain(
            rows.uniform(_CHOICE),
            is_first=rows.is_first,
            real=rows.real,
            share=self.rate,
            stay=1.0 - 1.0 / self.mean_length,
        )
        hidden = inside & rows.eligible
        has_one = tf.reduce_any(hidden, axis=1, keepdims=True)
        return hidden | _without(rows.least(rows.uniform(_SPARE)), has_one)


def _without(some: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    return some & tf.logical_not(others)


def _choose(rows: Rows, *, rate: float) -> tf.Tensor:
    """Gives (B, T) bool: each eligible token with probability `rate`, at least one a row."""
    if not rate:
        return tf.zeros_like(rows.real)
    draw = rows.uniform(_CHOICE)
    # If any draw is below the rate, so is the least.
    return (rows.eligible & (draw < rate)) | rows.least(draw)


def _chain(
    draw: tf.Tensor, *, is_first: tf.Tensor, real: tf.Tensor, share: float, stay: float
) -> tf.Tensor:
    """Gives (B, T) bool, the states of a two-state Markov chain along each row.

    A token is inside with probability `stay` if the one before it is, else with the probability
    `enter` that makes `share` of all tokens inside. One draw decides both cases, so each token
    sets the state, keeps it or (if enter > stay) turns it over: what a token's state is follows
    from the last token that set it.
    """
    enter = share * (1.0 - stay) / (1.0 - share)
    low, high = min(stay, enter), max(stay, enter)
    sets = real & (is_first | (draw < low) | (draw >= high))
    value = sets & tf.where(is_first, draw < share, draw < low)
    # Each token that sets the state begins a segment.
    size = tf.shape(draw)[1] + 1
    segments = tf.cumsum(tf.cast(sets, tf.int32), axis=1)
    segments += size * tf.range(tf.shape(draw)[0])[:, tf.newaxis]

    def of_setter(numbers: tf.Tensor) -> tf.Tensor:
        numbers = tf.where(sets, numbers, 0)
        totals = tf.math.unsorted_segment_sum(numbers, segments, size * tf.shape(draw)[0])
        return tf.gather(totals, segments)

    inside = of_setter(tf.cast(value, tf.int32))
    if enter > stay:
        turns = tf.cumsum(tf.cast(_without(real, sets), tf.int32), axis=1)
        inside += turns - of_setter(turns)
    return tf.math.floormod(inside, 2) == 1


CORRUPTIONS: dict[str, type] = {
    corruption.name: corruption for corruption in (RandomMasking, RandomDeletion, SpanCorruption)
}


def get_corruption(corruption: Any) -> Any:
    """Gives the corruption of a name or of `corruption_config`, or the given one; None for none.

    Raises:
        InputError: there is no such corruption or setting.
    """
    if corruption is None:
        return None
    return from_settings(corruption, table=CORRUPTIONS, kind="corruption")


def corruption_config(corruption: Any) -> dict[str, Any]:
    """Gives a corruption's name and settings as values that JSON and YAML hold."""
    return settings_of(corruption)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_share(value: Any, *, what: str) -> None:
    if not _is_number(value) or not 0.0 <= value <= 1.0:
        raise InputError(f"{what} must be a number from 0 to 1; received {value!r}.")


def _check_seed(value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"seed must be a whole number; received {value!r}.")
