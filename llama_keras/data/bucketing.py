"""Batches of texts of like length, so that little is computed for padding.

Axes: N texts, B batch, T tokens of the batch's longest text.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

import numpy as np
import tensorflow as tf

from llama_keras.data.shares import WHOLE, Share
from llama_keras.data.streams import order_keys, read_ahead, shuffled
from llama_keras.errors import InputError

# Texts are sorted by length within windows of this many batches: wide enough to fill batches with
# texts of one length, narrow enough that batches stay random.
WINDOW_BATCHES = 64
# Label of a token that has none, and of padding: no part of a loss.
NO_LABEL = -1


@dataclass(frozen=True)
class TokenRows:
    """Token ids of N texts and, for training, their label numbers and weights.

    Attributes:
        token_ids: N lists of ints, none empty.
        pad_id: stands in the unused places of a batch.
        labels: int32 `(N, …)`; or N lists of one int for each token, for labels of tokens; or
            `None`.
        sample_weights: float32 `(N,)` or `None`.
    """

    token_ids: list[list[int]]
    pad_id: int
    labels: np.ndarray | list[list[int]] | None = None
    sample_weights: np.ndarray | None = None

    def __post_init__(self):
        if not self.token_ids:
            raise InputError("There is no text to work on: the data set is empty.")
        if not all(self.token_ids):
            raise InputError("A text has no tokens; leave empty texts out.")
        if isinstance(self.labels, list):
            for row, (ids, labels) in enumerate(zip(self.token_ids, self.labels, strict=True)):
                if len(ids) != len(labels):
                    raise InputError(f"Row {row} has {len(ids)} tokens but {len(labels)} labels.")

    @property
    def lengths(self) -> np.ndarray:
        """The number of tokens of each text, int64 `(N,)`."""
        return np.array([len(row) for row in self.token_ids], dtype="int64")

    def take(self, index) -> "TokenRows":
        """Gives the texts of the numbers `index`, with their labels and weights."""
        labels, weights = self.labels, self.sample_weights
        if isinstance(labels, list):
            labels = [labels[i] for i in index]
        elif labels is not None:
            labels = labels[index]
        weights = None if weights is None else weights[index]
        return TokenRows([self.token_ids[i] for i in index], self.pad_id, labels, weights)


def weighted(rows: TokenRows, class_weight) -> TokenRows:
    """Gives rows whose weights are multiplied by those of their classes.

    Args:
        rows: with one label each.
        class_weight: number of a class → its weight; others weigh 1.

    Raises:
        InputError: the rows do not have one label each, or a class or a weight is no number.
    """
    labels = rows.labels
    if not isinstance(labels, np.ndarray) or labels.ndim != 1:
        raise InputError("class_weight needs examples of one label each; leave it out.")
    for key, weight in class_weight.items():
        is_weight = isinstance(weight, Real) and 0 <= float(weight) < math.inf
        if not isinstance(key, Integral) or not is_weight:
            raise InputError(
                f"class_weight has {key!r}: {weight!r}; expected the number of a class and a "
                "weight of 0 or more."
            )
    found = np.array([class_weight.get(int(label), 1.0) for label in labels], dtype="float32")
    given = rows.sample_weights
    return replace(rows, sample_weights=found if given is None else found * given)


def joined(rows: list[list[int]]) -> np.ndarray:
    """Gives the numbers of all rows one after the other, int32."""
    return np.concatenate([np.asarray(row, dtype="int32") for row in rows])


def batch_maker(rows: TokenRows) -> Callable[..., Any]:
    """Gives a function from text numbers `(B,)` to a padded batch, in the graph.

    What it gives is `token_ids` and `padding_mask`, int32 `(B, T)`, in a dict, and behind it the
    labels and weights where the rows have some.
    """
    splits = np.concatenate([[0], np.cumsum(rows.lengths)])
    flat = joined(rows.token_ids)
    by_token = joined(rows.labels) if isinstance(rows.labels, list) else None
    columns = [c for c in (rows.labels, rows.sample_weights) if isinstance(c, np.ndarray)]

    def make(index):
        starts, lengths = tf.gather(splits[:-1], index), tf.gather(rows.lengths, index)
        places = tf.ragged.range(starts, starts + lengths)
        # A replica's share of a small batch may be empty; layers want a width all the same.
        shape = tf.stack([-1, tf.reduce_max(tf.concat([lengths, [1]], axis=0))])
        token_ids = tf.gather(flat, places).to_tensor(rows.pad_id, shape=shape)
        mask = tf.sequence_mask(lengths, shape[1], dtype=tf.int32)
        features = {"token_ids": token_ids, "padding_mask": mask}
        targets = [tf.gather(column, index) for column in columns]
        if by_token is not None:
            targets.insert(0, tf.gather(by_token, places).to_tensor(NO_LABEL, shape=shape))
        return (features, *targets) if targets else features

    return make


def _epoch_plan(lengths, batch_size: int, seed: int):
    """Gives a function from the epoch's number to text numbers `(batches, B)`, -1 where unused."""
    count = len(lengths)
    batches = math.ceil(count / batch_size)
    window = WINDOW_BATCHES * batch_size
    widest = int(lengths.max()) + 1
    lengths = tf.constant(lengths)

    def plan(epoch):
        keys = order_keys(seed, epoch)
        order = shuffled(tf.range(count, dtype=tf.int64), keys=keys)
        windows = tf.range(count, dtype=tf.int64) // window
        by_length = tf.argsort(windows * widest + tf.gather(lengths, order), stable=True)
        order = tf.pad(
            tf.gather(order, by_length),
            [[0, batches * batch_size - count]],
            constant_values=-1,
        )
        return shuffled(tf.reshape(order, (batches, batch_size)), keys=keys + 1)

    return plan


def training_batches(
    rows: TokenRows, *, batch_size: int, seed: int, first_step: int = 0, share: Share = WHOLE
) -> tuple:
    """Gives an endless stream of batches in a new random order each epoch.

    The order is a pure function of (seed, epoch), so the stream begins anywhere at once.

    Args:
        rows: the texts and labels.
        batch_size: texts in a batch of all replicas; the last of an epoch may have fewer.
        seed: of the order.
        first_step: the batch to begin with, counted over all epochs.
        share: of the replicas whose rows are given.

    Returns:
        A `tf.data.Dataset` of `({"token_ids": int32 (B, T), "padding_mask": int32 (B, T)},
        labels (B, …) or (B, T)[, sample weights (B,)])` and the number of batches in an epoch.
    """
    steps = math.ceil(len(rows.token_ids) / batch_size)
    plan = _epoch_plan(rows.lengths, batch_size, seed)
    dataset = endless(plan, steps=steps, first_step=first_step, share=share)
    return read_ahead(dataset.map(batch_maker(rows), num_parallel_calls=1)), steps


@dataclass(frozen=True)
class Sizes:
    """What the batches of an epoch hold.

    Attributes:
        tokens: of the texts, int64 `(steps,)`.
        places: of the padded batches, int64 `(steps,)`.
    """

    tokens: np.ndarray
    places: np.ndarray


def epoch_sizes(lengths, *, batch_size: int, seed: int, epoch: int, replicas: int = 1) -> Sizes:
    """Gives what the batches of an epoch of `training_batches` hold, without making them.

    Args:
        lengths: int64 `(N,)`, of the texts.
        batch_size, seed: of `training_batches`.
        epoch: its number, from 0.
        replicas: among which each batch is shared out.
    """
    index = np.asarray(_epoch_plan(lengths, batch_size, seed)(tf.constant(epoch, tf.int64)))
    found = np.where(index >= 0, np.asarray(lengths)[index], 0)
    shares = [found[:, first::replicas] for first in range(replicas)]
    places = sum((s > 0).sum(axis=1) * s.max(axis=1, initial=0) for s in shares)
    return Sizes(tokens=found.sum(axis=1), places=np.asarray(places))


def endless(plan, *, steps: int, first_step: int, share: Share):
    """Gives a share's row numbers `(B,)` of each batch, for ever.

    Args:
        plan: gives an epoch's row numbers `(batches, B)`, -1 where a batch is not full.
        steps: batches in an epoch.
        first_step: the batch to begin with, counted over all epochs.
        share: of the replicas whose rows are given.
    """
    dataset = (
        tf.data.Dataset.counter(start=first_step // steps, dtype=tf.int64)
        .flat_map(lambda epoch: tf.data.Dataset.from_tensor_slices(plan(epoch)))
        .skip(first_step % steps)
        .map(lambda index: tf.boolean_mask(index, index >= 0))
    )
    return share.split(dataset)


def inference_batches(rows: TokenRows, *, batch_size: int, share: Share = WHOLE) -> tuple:
    """Gives the texts once, sorted by length, and their numbers in that order.

    Args:
        rows: the texts, and labels if there are any.
        batch_size: texts in a batch of all replicas.
        share: of the replicas whose rows are given.

    Returns:
        A finite `tf.data.Dataset` like that of `training_batches` (the features alone where there
        are no labels), and int64 `(N,)`: the text that stands at each place of the stream.
    """
    order = np.argsort(rows.lengths, kind="stable")
    numbers = share.split(tf.data.Dataset.from_tensor_slices(order).batch(batch_size))
    return read_ahead(numbers.map(batch_maker(rows), num_parallel_calls=1)), order
