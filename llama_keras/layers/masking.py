"""Who may look at whom, and where each token stands: built once per forward pass.

Axes: B batch, T tokens, S tokens looked at.
"""

import keras
from keras import ops

from llama_keras.errors import InputError


def _causal(rows, columns, prefix):
    return (rows >= columns)[None]


def _bidirectional(rows, columns, prefix):
    return ops.ones_like(rows >= columns)[None]


def _prefix(rows, columns, prefix):
    both = ops.logical_and(prefix[:, :, None], prefix[:, None, :])
    return ops.logical_or((rows >= columns)[None], both)


# attention_mask -> bool (B or 1, T, S): may the token at `rows` look at the one at `columns`?
MASK_MODES = {"causal": _causal, "bidirectional": _bidirectional, "prefix": _prefix}


# The segment of tokens that every segment of their row may look at, and that look at none of them.
SHARED_SEGMENT = -1


def check_mask_mode(mode: str) -> str:
    """Gives `mode` back when it is known, else raises `InputError` with the known ones."""
    if mode not in MASK_MODES:
        raise InputError(
            f"attention_mask={mode!r} is not known; expected one of {list(MASK_MODES)}."
        )
    return mode


def check_prefix(mode: str, prefix_mask) -> None:
    """Raises `InputError` unless a prefix is given just where the mode needs one."""
    if (mode == "prefix") != (prefix_mask is not None):
        needs = "needs" if mode == "prefix" else "takes no"
        raise InputError(
            f"attention_mask={mode!r} {needs} 'prefix_mask' (B, T), true for the tokens that see "
            "each other both ways; see layers.masking.prefix_mask."
        )


def prefix_mask(lengths, padding_mask):
    """Gives the mask of each row's first tokens, as `attention_mask="prefix"` takes it.

    Args:
        lengths: int `(B,)`, how many real tokens of each row see each other both ways.
        padding_mask: bool or int `(B, T)`, true for real tokens; padding may stand on either side.

    Returns:
        int32 `(B, T)`.
    """
    real = ops.cast(padding_mask, "int32")
    first = ops.cumsum(real, axis=1) <= ops.cast(lengths, "int32")[:, None]
    return real * ops.cast(first, "int32")


def additive(mask, dtype):
    """Turns a bool mask into what is added to attention scores: 0 where it is true.

    Elsewhere stands a large negative finite number, so that a row in which nothing may be looked
    at (a padding token) stays free of NaN.
    """
    floor = -3e4 if keras.backend.standardize_dtype(dtype) == "float16" else -1e9
    return ops.where(mask, ops.cast(0.0, dtype), ops.cast(floor, dtype))


@keras.saving.register_keras_serializable(package="llama_keras")
class AttentionBias(keras.layers.Layer):
    """Gives the bias that is added to the attention scores of every layer.

    Args:
        mode: `"causal"` (a token sees itself and those before it), `"bidirectional"`, or
            `"prefix"` (causal, but the tokens of the prefix see each other both ways).

    Call arguments:
        token_ids: int `(B, T)`; only its shape is used.
        padding_mask: optional bool or int `(B, T)`, true for real tokens; padding may stand on
            either side.
        segment_ids: optional int `(B, T)`; a token sees only its own segment (packed rows), and
            that of `SHARED_SEGMENT`.
        prefix_mask: bool or int `(B, T)`, true for the tokens of the prefix, in each segment its
            own; needed by, and only by, `"prefix"`.

    Returns:
        `(B, 1, T, T)` in the compute dtype, or `(1, 1, T, T)` when there is neither padding mask
        nor segments nor prefix.
    """

    def __init__(self, mode: str = "causal", **kwargs):
        super().__init__(**kwargs)
        self.mode = check_mask_mode(mode)

    def call(self, token_ids, padding_mask=None, segment_ids=None, prefix_mask=None):
        """Builds the bias; see the class."""
        check_prefix(self.mode, prefix_mask)
        steps = ops.arange(ops.shape(token_ids)[1], dtype="int32")
        prefix = None if prefix_mask is None else ops.cast(prefix_mask, "bool")
        mask = MASK_MODES[self.mode](steps[:, None], steps[None, :], prefix)[:, None]
        if padding_mask is not None:
            mask = ops.logical_and(mask, ops.cast(padding_mask, "bool")[:, None, None, :])
        if segment_ids is not None:
            same = ops.equal(segment_ids[:, :, None], segment_ids[:, None, :])
            shared = ops.equal(segment_ids, SHARED_SEGMENT)[:, None, :]
            mask = ops.logical_and(mask, ops.logical_or(same, shared)[:, None])
        return additive(mask, self.compute_dtype)

    def compute_output_spec(self, token_ids, padding_mask=None, segment_ids=None, prefix_mask=None):
        """Gives the shape without computing it."""
        check_prefix(self.mode, prefix_mask)
        alone = padding_mask is None and segment_ids is None and prefix_mask is None
        batch, length = token_ids.shape
        return keras.KerasTensor(
            (1 if alone else batch, 1, length, length), dtype=self.compute_dtype
        )

    def get_config(self):
        """Gives the arguments of the constructor."""
        return {**super().get_config(), "mode": self.mode}


@keras.saving.register_keras_serializable(package="llama_keras")
class TokenPositions(keras.layers.Layer):
    """Gives each token's position: int32 `(B, T)`, counted from 0 in each text.

    Padding on the left does not shift a text, and each segment of a packed row starts anew.
    Positions given by the caller are passed through.

    Call arguments:
        token_ids: int `(B, T)`; only its shape is used.
        padding_mask: optional bool or int `(B, T)`, true for real tokens.
        segment_ids: optional int `(B, T)`.
        positions: optional int `(B, T)`.
    """

    def call(self, token_ids, padding_mask=None, segment_ids=None, positions=None):
        """Counts; see the class."""
        if positions is not None:
            return ops.cast(positions, "int32")
        steps = ops.arange(ops.shape(token_ids)[1], dtype="int32")
        if segment_ids is not None:
            same = ops.equal(segment_ids[:, :, None], segment_ids[:, None, :])
            before = ops.logical_and(same, steps[:, None] > steps[None, :])
            return ops.sum(ops.cast(before, "int32"), axis=-1)
        if padding_mask is not None:
            seen = ops.cumsum(ops.cast(padding_mask, "int32"), axis=1)
            return ops.maximum(seen - 1, 0)
        return ops.broadcast_to(steps[None], ops.shape(token_ids))

    def compute_output_spec(self, token_ids, padding_mask=None, segment_ids=None, positions=None):
        """Gives the shape without computing it."""
        return keras.KerasTensor(token_ids.shape, dtype="int32")
