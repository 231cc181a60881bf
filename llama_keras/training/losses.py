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


def mask_of(answer):
    """Gives the mask that Keras carries along with a model's answer, or None.

    Raises:
        InputError: the model has several answers, and one of them has a mask.
    """
    leaves = [leaf for leaf in tf.nest.flatten(answer) if leaf is not None]
    # As `keras.src.backend.get_keras_mask`, which is not public.
    masks = [getattr(leaf, "_keras_mask", None) for leaf in leaves]
    if len(leaves) > 1 and any(mask is not None for mask in masks):
        raise InputError(
            "Several answers with masks are not counted right over replicas or parts of a batch; "
            "give sample_weight instead of masks (Embedding(mask_zero=True), Masking)."
        )
    return masks[0] if masks else None


@dataclass(frozen=True)
class LossKind:
    """How the values of a loss on parts of a batch make its value on the whole.

    Attributes:
        is_mean: whether it is a mean; else a sum.
        count: gives what a mean is over, float32, of `(x, y, sample_weight)`.
        by_weight: whether the mean is over the weights.
        ignored: the label that is left out of the mean, if there is one.
    """

    is_mean: bool
    count: Callable[[Any, Any, Any], Any]
    by_weight: bool = False
    ignored: int | None = None

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

    def masked_count(self, x, y, weight, mask):
        """Gives what a mean is over where Keras masks the values of the loss.

        Args:
            x, y, weight: of the batch.
            mask: of the answer, `(B, …)`; None where there is none.
        """
        if self.ignored is None and mask is None:
            return self.count(x, y, weight)
        shape = tf.shape(y if mask is None else mask)
        valid: Any = tf.ones(shape) if mask is None else tf.cast(mask, tf.float32)
        if self.ignored is not None:
            is_kept = tf.cast(y, tf.int32) != self.ignored
            valid *= tf.reshape(tf.cast(is_kept, tf.float32), shape)
        if self.by_weight and weight is not None:
            ranks = tf.rank(valid) - tf.rank(weight)
            ones = tf.ones(tf.maximum(ranks, 0), tf.int32)
            valid *= tf.cast(tf.reshape(weight, tf.concat([tf.shape(weight), ones], 0)), tf.float32)
        return tf.reduce_sum(valid)


def _rows(x, y, weight):
    return rows_of(x)


def _weights(x, y, weight):
    return rows_of(x) if weight is None else tf.reduce_sum(tf.cast(weight, tf.float32))


def _kind(loss) -> LossKind:
    if (count := getattr(loss, "loss_count", None)) is not None:
        return LossKind(True, lambda x, y, weight: count(y))
    is_mean, count, by_weight = _KINDS[getattr(loss, "reduction", "mean")]
    return LossKind(is_mean, count, by_weight, getattr(loss, "ignore_class", None))


# Keras's reductions → whether it is a mean, over what, whether that is the weights.
_MEAN = (True, _rows, False)
_KINDS = {
    "mean": _MEAN,
    "sum_over_batch_size": _MEAN,
    "mean_with_sample_weight": (True, _weights, True),
    "sum": (False, _rows, False),
    "none": _MEAN,
    None: _MEAN,
}
