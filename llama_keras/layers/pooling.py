"""One vector for a text out of the vectors of its tokens.

Axes: B batch, T tokens, E model width.
"""

import keras
from keras import ops

from llama_keras.errors import InputError


def _last(hidden, mask):
    # Padding may stand on either side: the last real token is the one with the largest index.
    steps = ops.arange(ops.shape(hidden)[1], dtype="int32")
    last = ops.max(ops.where(mask, steps[None], -1), axis=1)
    return ops.take_along_axis(hidden, ops.maximum(last, 0)[:, None, None], axis=1)[:, 0]


def _mean(hidden, mask):
    # Summed in float32: bfloat16 sums over long texts lose the small terms.
    weights = ops.cast(mask, "float32")[..., None]
    total = ops.sum(ops.cast(hidden, "float32") * weights, axis=1)
    return ops.cast(total / ops.maximum(ops.sum(weights, axis=1), 1.0), hidden.dtype)


POOLINGS = {"last": _last, "mean": _mean}


@keras.saving.register_keras_serializable(package="llama_keras")
class Pooling(keras.layers.Layer):
    """Pools token vectors over the real tokens of each text.

    Args:
        mode: `"last"` (the last real token: it has seen the whole text under a causal mask) or
            `"mean"` (the mean of the real tokens: for bidirectional models).

    Call arguments:
        hidden: `(B, T, E)`.
        padding_mask: bool or int `(B, T)`, true for real tokens.

    Returns:
        `(B, E)`.
    """

    def __init__(self, mode: str = "last", **kwargs):
        super().__init__(**kwargs)
        if mode not in POOLINGS:
            raise InputError(f"pooling={mode!r} is not known; expected one of {list(POOLINGS)}.")
        self.mode = mode

    def call(self, hidden, padding_mask):
        """Pools; see the class."""
        return POOLINGS[self.mode](hidden, ops.cast(padding_mask, "bool"))

    def compute_output_shape(self, hidden_shape, padding_mask_shape=None):
        """Gives `(B, E)`."""
        return (hidden_shape[0], hidden_shape[2])

    def get_config(self):
        """Gives the arguments of the constructor."""
        return {**super().get_config(), "mode": self.mode}
