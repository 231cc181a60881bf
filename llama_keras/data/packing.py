"""Several texts in one row, so that rows of one width have hardly any padding.

Which lengths lie together is settled once, by best-fit decreasing (arXiv 2404.10830): the number of
rows is the same in each epoch. Which text of a length lies where is drawn anew for each epoch, as
is the order of rows; both are pure functions of (seed, epoch), so the stream begins anywhere.

Axes: N texts, R rows of an epoch, B rows of a batch, T tokens of a row, n texts of a batch.
"""

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from llama_keras.data.bucketing import NO_LABEL, Sizes, TokenRows, joined
from llama_keras.data.shares import WHOLE, Share
from llama_keras.data.streams import order_keys, read_ahead, shuffled
from llama_keras.errors import InputError


@dataclass(frozen=True)
class Packing:
    """Which lengths lie together in rows of T tokens.

    A slot is a place for one text. Slots are numbered by their lengths, the longest one first.

    Attributes:
        lengths: of the texts, int64 `(N,)`.
        width: T.
        slots: row by row, the numbers of the slots, int64 `(N,)`.
        splits: where each row begins among them, int64 `(R + 1,)`.
    """

    lengths: np.ndarray
    width: int
    slots: np.ndarray
    splits: np.ndarray

    @classmethod
    def of(cls, lengths, *, width: int) -> "Packing":
        """Packs texts of these lengths, none above `width`.

        Raises:
            InputError: there is no text, or one does not fit.
        """
        lengths = np.asarray(lengths, "int64")
        if not len(lengths):
            raise InputError("There is no text to pack: the data set is empty.")
        if lengths.min() < 1 or lengths.max() > width:
            raise InputError(
                f"Texts of 1 … {width} tokens fit into a row whole; there is one of "
                f"{lengths.min() if lengths.min() < 1 else lengths.max()}. Cut it, or raise "
                "max_sequence_length."
            )
        row_of = _best_fit(np.sort(lengths)[::-1], width)
        counts = np.bincount(row_of)
        return cls(
            lengths,
            width,
            np.argsort(row_of, kind="stable"),
            np.concatenate([[0], np.cumsum(counts)]),
        )

    @property
    def num_rows(self) -> int:
        """R."""
        return len(self.splits) - 1

    @property
    def row_tokens(self) -> np.ndarray:
        """Tokens of the texts in each row, int64 `(R,)`."""
        by_slot = np.sort(self.lengths)[::-1][self.slots]
        return np.add.reduceat(by_slot, self.splits[:-1])

    def steps(self, batch_size: int) -> int:
        """The number of batches in an epoch."""
        return math.ceil(self.num_rows / batch_size)

    def row_order(self, *, seed: int, epoch):
        """Gives the order of an epoch's rows, int64 `(R,)`."""
        rows = tf.range(self.num_rows, dtype=tf.int64)
        return shuffled(rows, keys=order_keys(seed, epoch) + 1)

    def epoch(self, *, seed: int, epoch) -> Any:
        """Gives the numbers of an epoch's texts, ragged `(R, texts of a row)`, in their order.

        Args:
            seed: of the order.
            epoch: int64 scalar, from 0.
        """
        texts = tf.range(len(self.lengths), dtype=tf.int64)
        order = shuffled(texts, keys=order_keys(seed, epoch))
        # The texts of a length come in a random order, so each of its slots gets a random one.
        by_slot = tf.gather(order, tf.argsort(-tf.gather(self.lengths, order), stable=True))
        rows = self.row_order(seed=seed, epoch=epoch)
        places = tf.ragged.range(tf.gather(self.splits, rows), tf.gather(self.splits, rows + 1))
        return tf.gather(tf.gather(by_slot, self.slots), places)

    def sizes(self, *, batch_size: int, seed: int, epoch: int, replicas: int = 1) -> Sizes:
        """Gives what the batches of an epoch hold, without making them.

        Args:
            batch_size, seed: of `packed_batches`.
            epoch: its number, from 0.
            replicas: among which each batch is shared out.
        """
        steps = self.steps(batch_size)
        order = np.asarray(self.row_order(seed=seed, epoch=tf.constant(epoch, tf.int64)))
        tokens = np.zeros(steps * batch_size, "int64")
        tokens[: len(order)] = self.row_tokens[order]
        places = replicas * _rows_of_replica(batch_size, replicas) * self.width
        return Sizes(
            tokens=tokens.reshape(steps, batch_size).sum(axis=1),
            places=np.full(steps, places, "int64"),
        )


def _best_fit(lengths, width: int) -> np.ndarray:
    """Gives the row of each text, the longest first: the fullest one that has room for it."""
    rooms: dict[int, list[int]] = {}  # room left → rows
    known: list[int] = []  # its keys, sorted
    found = np.empty(len(lengths), "int64")
    rows = 0
    for slot, length in enumerate(lengths.tolist()):
        place = bisect.bisect_left(known, length)
        if place == len(known):
            row, room = rows, width
            rows += 1
        else:
            room = known[place]
            row = rooms[room].pop()
            if not rooms[room]:
                del rooms[room], known[place]
        found[slot] = row
        if left := room - length:
            if left not in rooms:
                rooms[left] = []
                bisect.insort(known, left)
            rooms[left].append(row)
    return found


def _rows_of_replica(batch_size: int, replicas: int) -> int:
    return math.ceil(batch_size / replicas)


@dataclass(frozen=True)
class Field:
    """A value for each token of the texts of a batch.

    Attributes:
        values: ragged `(n, tokens of a text)`.
        filler: stands where there is no token.
    """

    values: Any
    filler: float | int = 0


def packed_batches(
    packing: Packing,
    fields: Callable[[Any, Any], dict[str, Field]],
    *,
    batch_size: int,
    seed: int,
    first_step: int = 0,
    share: Share = WHOLE,
) -> tf.data.Dataset:
    """Gives an endless stream of packed batches, each epoch with every text once and whole.

    All batches have one shape: where rows are missing, at the end of an epoch, there is padding.

    Args:
        packing: of the texts.
        fields: from the numbers of texts, int64 `(n,)`, and the epoch, int64 scalar, what the rows
            hold besides `padding_mask`, `segment_ids` and `positions`.
        batch_size: rows in a batch of all replicas.
        seed: of the order.
        first_step: the batch to begin with, counted over all epochs.
        share: of the replicas whose rows are given.

    Returns:
        A `tf.data.Dataset` of dicts of `(B, T)`. `segment_ids`, int32, count a row's texts from 1
        and are 0 in padding; `positions`, int32, are counted from 0 in each text.
    """
    steps, first_epoch = packing.steps(batch_size), first_step // packing.steps(batch_size)
    rows_of_replica = _rows_of_replica(batch_size, share.replicas)

    def of_epoch(epoch):
        texts = packing.epoch(seed=seed, epoch=epoch)
        begin = tf.where(epoch == first_epoch, tf.constant(first_step % steps, tf.int64), 0)
        numbers = tf.data.Dataset.range(begin, steps).map(
            lambda step: tf.range(
                step * batch_size, tf.minimum((step + 1) * batch_size, packing.num_rows)
            )
        )

        def batch(rows):
            mine = tf.gather(texts, rows)
            return _pack(mine, fields(mine.values, epoch), packing, num_rows=rows_of_replica)

        return share.split(numbers).map(batch, num_parallel_calls=1)

    epochs = tf.data.Dataset.counter(start=first_epoch, dtype=tf.int64)
    return read_ahead(epochs.flat_map(of_epoch))


def _pack(texts, fields: dict[str, Field], packing: Packing, *, num_rows: int) -> dict[str, Any]:
    """Gives the rows of `texts`, ragged `(rows, texts of a row)`, filled up to `num_rows`."""
    lengths = tf.gather(packing.lengths, texts.values)
    tokens = tf.reduce_sum(texts.with_values(lengths), axis=1)
    tokens = tf.concat([tokens, tf.zeros(num_rows - tf.shape(tokens)[0], tokens.dtype)], axis=0)
    shape = (num_rows, packing.width)

    def dense(values, filler):
        make: Any = tf.RaggedTensor  # TensorFlow's type stubs lack its constructors
        rows = make.from_row_lengths(values, tokens, validate=False)
        return tf.ensure_shape(rows.to_tensor(tf.cast(filler, values.dtype), shape=shape), shape)

    number = tf.ragged.range(1, texts.row_lengths() + 1).values
    mask = tf.sequence_mask(tokens, packing.width, dtype=tf.int32)
    return {
        **{name: dense(field.values.values, field.filler) for name, field in fields.items()},
        "padding_mask": tf.ensure_shape(mask, shape),
        "segment_ids": dense(tf.cast(tf.repeat(number, lengths), tf.int32), 0),
        "positions": dense(tf.cast(tf.ragged.range(lengths).values, tf.int32), 0),
    }


def text_tokens(rows: TokenRows) -> Callable[[Any], Any]:
    """Gives a function from text numbers `(n,)` to their token ids, ragged int32."""
    return _ragged_values(rows.token_ids)


def _ragged_values(lists: list[list[int]]):
    with tf.device("CPU"):  # held once, beside the graph, which has room for 2 GB
        splits = tf.constant(np.cumsum([0, *map(len, lists)]), tf.int64)
        flat = tf.constant(joined(lists))

    def values(index):
        places = tf.ragged.range(tf.gather(splits[:-1], index), tf.gather(splits[1:], index))
        return tf.gather(flat, places)

    return values


def packed_training_batches(
    rows: TokenRows,
    packing: Packing,
    *,
    batch_size: int,
    seed: int,
    first_step: int = 0,
    share: Share = WHOLE,
) -> tf.data.Dataset:
    """Gives the packed counterpart of `bucketing.training_batches`, for labels of tokens.

    Args:
        rows: the texts, with a label for each token.
        packing: of their lengths.
        batch_size, seed, first_step, share: see `packed_batches`.

    Returns:
        A `tf.data.Dataset` of `(features, labels)`, the features those of `packed_batches` with
        `token_ids`, all `(B, T)`.

    Raises:
        InputError: the labels are not those of tokens.
    """
    if not isinstance(rows.labels, list):
        raise InputError("Packed rows need a label for each token; leave packing out for others.")
    tokens, labels = text_tokens(rows), _ragged_values(rows.labels)

    def fields(texts, epoch):
        return {
            "token_ids": Field(tokens(texts), rows.pad_id),
            "labels": Field(labels(texts), NO_LABEL),
        }

    dataset = packed_batches(
        packing, fields, batch_size=batch_size, seed=seed, first_step=first_step, share=share
    )

    def split(batch):
        return {name: value for name, value in batch.items() if name != "labels"}, batch["labels"]

    return dataset.map(split)
