"""Batches of texts that belong together: a pair's halves never part.

Axes: N examples, V views, B batch, T tokens of the batch's longest text.
"""

import math
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from llama_keras.data.bucketing import TokenRows, batch_maker, endless
from llama_keras.data.shares import WHOLE, Share
from llama_keras.data.streams import order_keys, read_ahead, shuffled

# Before `token_ids` and `padding_mask` of the second and third text of each example; the first
# text's features are those of every other task.
PREFIXES = ("", "positive_", "negative_")


@dataclass(frozen=True)
class ViewRows:
    """Token ids of N examples of V texts each.

    Attributes:
        views: V `TokenRows` of N texts; row i of each belongs to example i.
        numbers: int32 `(N, V)`, equal for equal texts; or `(N,)` class numbers where V is 1.
    """

    views: tuple[TokenRows, ...]
    numbers: np.ndarray

    @property
    def is_same_twice(self) -> bool:
        """Whether the second view is the first one again."""
        return len(self.views) > 1 and self.views[1] is self.views[0]


def view_batches(
    rows: ViewRows, *, batch_size: int, seed: int, first_step: int = 0, share: Share = WHOLE
) -> tuple:
    """Gives an endless stream of batches in a new random order each epoch.

    The order is a pure function of (seed, epoch), and random through and through: sorted by length
    as for other tasks, the questions on one paragraph, say, would meet in a batch, where they
    cannot be each other's negatives. The batches of an epoch differ by one example at most.

    Args:
        rows: the examples.
        batch_size: most examples in a batch of all replicas.
        seed: of the order.
        first_step: the batch to begin with, counted over all epochs.
        share: of the replicas whose rows are given.

    Returns:
        A `tf.data.Dataset` of `(features, numbers)`: for each view `token_ids` and `padding_mask`,
        int32 `(B, T)`, under names that begin with its one of `PREFIXES`; int32 `(B, V)` or
        `(B,)`, the numbers. And the number of batches in an epoch.
    """
    count = len(rows.numbers)
    steps = math.ceil(count / batch_size)
    padded = [batch_maker(view) for view in rows.views]
    numbers = tf.constant(rows.numbers)

    def plan(epoch):
        order = shuffled(tf.range(count, dtype=tf.int64), keys=order_keys(seed, epoch))
        order = tf.pad(order, [[0, -count % steps]], constant_values=-1)
        return tf.transpose(tf.reshape(order, (-1, steps)))

    def make(index):
        features = {}
        for prefix, view in zip(PREFIXES, padded, strict=False):
            features |= {prefix + name: value for name, value in view(index).items()}
        return features, tf.gather(numbers, index)

    dataset = endless(plan, steps=steps, first_step=first_step, share=share)
    return read_ahead(dataset.map(make, num_parallel_calls=1)), steps
