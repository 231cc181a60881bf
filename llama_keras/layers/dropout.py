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


class ReplicaSeedGenerator(keras.random.SeedGenerator):
    """A Keras seed generator that gives each replica its own seeds.

    A seed is a pure function of the generator's seed, of how many were drawn before, and of the
    replica; the first replica has those of `keras.random.SeedGenerator`.
    """

    def next(self, ordered=True):
        """Gives the next seed, `(2,)`."""
        seed = super().next(ordered=ordered)
        replica = _replica()
        if isinstance(replica, int) and replica == 0:
            return seed
        shift = ops.cast(replica, seed.dtype) * _STRIDE
        return seed + ops.stack([shift, ops.zeros_like(shift)])


class Dropout(keras.layers.Dropout):
    """`keras.layers.Dropout`, which under `tf.distribute` drops other values on each replica.

    Args:
        rate: share of values that are dropped.
        seed: of the generator.
        **kwargs: of `keras.layers.Dropout`.
    """

    def __init__(self, rate, *, seed=None, **kwargs):
        super().__init__(rate, seed=seed, **kwargs)
        if self.rate > 0:
            del self.seed_generator  # so that Keras forgets its state
            self.seed_generator = ReplicaSeedGenerator(seed)
