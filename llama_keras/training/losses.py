"""What the value of a Keras loss is: a mean over what, or a sum."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from llama_keras.errors import InputError


def rows_of(x):
    """Gives the number of rows of nested tensors `(B, …)`, float32."""
    first = next(value for value in tf.nest.flatten(x) if value is not None)
    return tf.cast(tf.shape(first)[0], tf.float32)


def _rows(x, y, weight):
    return rows_of(x)


def _weights(x, y, weight):
    return rows_of(x) if weight is None else tf.reduce_sum(tf.cast(weight, tf.float32))


@dataclass(frozen=True)
class LossKind:
    """How the values of a loss on parts of a batch make its value on the whole.

    Attributes:
        is_mean: whether it is a mean; else a sum.
        count: gives what a mean is over, float32, of `(x, y, sample_weight)`.
    """

    is_mean: bool
    count: Callable[[Any, Any, Any], Any]

    @classmethod
    def of(cls, loss) -> "LossKind":
        """Gives the kind of what `compile` was given as `loss`.

        A loss with a method `loss_count(y)` is a mean over that; others go by their `reduction`.

        Raises:
            InputError: there are several, of different kinds.
        """
        leaves = [leaf for leaf in tf.nest.flatten(loss) if leaf is not None]
        kinds = list({_kind(leaf) for leaf in leaves}) or [cls(True, _rows)]
        if len(kinds) > 1:
            raise InputError(
                "The losses of a model must have one reduction, for their sum over replicas; "
                f"received {[getattr(leaf, 'reduction', leaf) for leaf in leaves]}."
            )
        return kinds[0]


def _kind(loss) -> LossKind:
    if (count := getattr(loss, "loss_count", None)) is not None:
        return LossKind(True, lambda x, y, weight: count(y))
    reduction = getattr(loss, "reduction", "sum_over_batch_size")
    return _KINDS.get(reduction, LossKind(True, _rows))


_KINDS = {
    "sum": LossKind(False, _rows),
    "mean_with_sample_weight": LossKind(True, _weights),
}
