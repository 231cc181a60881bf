"""Dropout whose masks differ between the replicas of a `tf.distribute` strategy."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

# Gives the number of the replica that runs; `training.replicas` replaces it, for this package's
# layers know no TensorFlow.
_replica: Callable[[], Any] = lambda: 0  # noqa: E731
# Far more than the seeds that people give, so that no two replicas of two models meet.
_STRIDE = 0x5851F42D


def number_replicas(function: Callable[[], Any]) -> None:
    """Says how the number of the running replica is found."""
    global _replica
    _replica = function


class ReplicaSeeds(keras.random.SeedGenerator):
    """The seeds of another generator, shifted by the number of the replica that runs.

    A seed is a pure function of the generator's own seed, of how many were drawn before, and of the
    replica; the first replica has those of the generator.

    Args:
        generator: a `keras.random.SeedGenerator`, which keeps the state.
    """

    def __init__(self, generator: keras.random.SeedGenerator):
        self.generator = generator  # and no state of its own

    def next(self, ordered=True):
        """Gives the next seed, `(2,)`."""
        seed = self.generator.next(ordered=ordered)
        replica = _replica()
        if isinstance(replica, int) and replica == 0:
            return seed
        shift = ops.cast(replica, seed.dtype) * _STRIDE
        return seed + ops.stack([shift, ops.zeros_like(shift)])


class Dropout(keras.layers.Dropout):
    """`keras.layers.Dropout`, which under `tf.distribute` drops other values on each replica.

    Arguments are those of `keras.layers.Dropout`.
    """

    def call(self, inputs, training=False):
        """Gives `inputs`, in training with a share of them dropped and the others scaled up."""
        if not training or not self.rate:
            return inputs
        seeds = ReplicaSeeds(self.seed_generator)
        return keras.random.dropout(inputs, self.rate, noise_shape=self.noise_shape, seed=seeds)
