"""How the next token is chosen from logits: greedy, temperature, top-k, top-p, one row at a time.

Everything is per row and follows from `(seed, step)` of that row alone, so a text does not depend
on which others share its batch, nor on the backend's own random generator.

Axes: B batch, V vocabulary.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from keras import ops

from llama_keras.errors import InputError

# Halvings of an interval that ends at 0. The widest one that occurs (logits of about 1e4 after
# division by a small temperature) shrinks below the spacing of float32 logits.
_HALVINGS = 44
# Below this distance (in nats) from the best token a float32 probability is zero.
_NEGLIGIBLE = 110.0
_EXCLUDED = -1e30


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How one row is continued; see `choose`.

    Raises:
        InputError: a value is out of range; the message names it.
    """

    max_new_tokens: int = 64
    """At least 1."""
    temperature: float = 0.0
    """0 takes the best token, 1 samples from the model as it is, more is wilder."""
    top_k: int = 0
    """Sample among the best k tokens only; 0 for all."""
    top_p: float = 1.0
    """Sample among the best tokens that together have this probability; 1 for all."""
    seed: int = 0
    """Any integer; the same seed gives the same text."""

    def __post_init__(self):
        for name, (kinds, fits, wanted) in _CHECKS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, kinds) or not fits(value):
                raise InputError(f"{name} must be {wanted}; received {value!r}.")

    @staticmethod
    def stack(settings: Sequence["SamplingSettings"], *, rows: int) -> dict[str, np.ndarray]:
        """Gives one array `(rows,)` for each setting; rows beyond `settings` get no new tokens."""
        columns = {}
        for name, dtype in _DTYPES.items():
            values = [getattr(row, name) for row in settings] + [0] * (rows - len(settings))
            columns[name] = np.array([v % 2**32 if name == "seed" else v for v in values], dtype)
        return columns


_INTEGER, _NUMBER = (int, np.integer), (int, float, np.integer, np.floating)
# Setting -> (its types, which values are right, how that is said)
_CHECKS = {
    "max_new_tokens": (_INTEGER, lambda x: x >= 1, "an integer of at least 1"),
    "temperature": (_NUMBER, lambda x: 0 <= x < math.inf, "a number of at least 0"),
    "top_k": (_INTEGER, lambda x: x >= 0, "an integer of at least 0 (0: no limit)"),
    "top_p": (_NUMBER, lambda x: 0 < x <= 1, "a number above 0 and at most 1 (1: no limit)"),
    "seed": (_INTEGER, lambda x: True, "an integer"),
}
_DTYPES = {
    "max_new_tokens": "int32",
    "temperature": "float32",
    "top_k": "int32",
    "top_p": "float32",
    "seed": "uint32",
}


def choose(logits, *, temperature, top_k, top_p, seed, step):
    """Gives the next token of each row and its log-probability.

    Temperature divides the logits, then `top_k` keeps the k best tokens, then `top_p` keeps the
    smallest set of the best ones whose share of what is left reaches it (arXiv 1904.09751); of
    what remains one is drawn. Tokens that tie with the last one kept are kept as well.

    Args:
        logits: float32 `(B, V)`.
        temperature: float32 `(B,)`; 0 takes the best token.
        top_k: int32 `(B,)`; 0 keeps all.
        top_p: float32 `(B,)` in (0, 1]; 1 keeps all.
        seed: uint32 `(B,)`.
        step: int32 scalar, the number of tokens chosen before.

    Returns:
        Token ids, int32 `(B,)`, and float32 `(B,)`: their log-probabilities under the model
        itself, before temperature and filters.
    """
    best = ops.cast(ops.argmax(logits, axis=-1), "int32")

    def draw():
        warm = ops.maximum(temperature, 1e-6)[:, None]
        scaled = (logits - ops.max(logits, axis=-1, keepdims=True)) / warm
        noise = -ops.log(exponential_noise(seed, step, logits.shape[-1]))
        kept = keep_likely(scaled, top_k=top_k, top_p=top_p)
        drawn = ops.argmax(kept + noise, axis=-1)  # Gumbel-max: a draw from softmax(kept)
        return ops.where(temperature > 0.0, ops.cast(drawn, "int32"), best)

    tokens = ops.cond(ops.any(temperature > 0.0), draw, lambda: best)
    chosen = ops.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0]
    return tokens, chosen - ops.logsumexp(logits, axis=-1)


def keep_likely(scaled, *, top_k, top_p):
    """Gives `scaled` with the tokens that `top_k` and `top_p` drop at -1e30.

    The border is found by halving the range of the logits, not by sorting them: a sort of 50,000
    floats is what costs most in a sampler, and the halving keeps exactly the same tokens.

    Args:
        scaled: float32 `(B, V)`, logits over temperature with 0 as each row's greatest.
        top_k: int32 `(B,)`; 0 keeps all.
        top_p: float32 `(B,)`; 1 keeps all.
    """

    def by_count():
        limit = ops.where(top_k > 0, ops.cast(top_k, "float32"), math.inf)
        lowest = ops.min(scaled, axis=-1) - 1.0
        return _above_border(scaled, ops.ones_like(scaled), limit, lowest)

    kept = ops.cond(ops.any(top_k > 0), by_count, lambda: scaled)

    def by_share():
        limit = ops.where(top_p < 1.0, top_p, math.inf)
        lowest = ops.full_like(top_p, -_NEGLIGIBLE)
        return _above_border(kept, ops.softmax(kept, axis=-1), limit, lowest)

    return ops.cond(ops.any(top_p < 1.0), by_share, lambda: kept)


def _above_border(scaled, weights, limit, lowest):
    """Keeps a token when the weights of all better ones sum to less than `limit`."""

    def halve(low, high):
        middle = low + (high - low) / 2
        better = ops.sum(ops.where(scaled > middle[:, None], weights, 0.0), axis=-1)
        enough = better >= limit
        return ops.where(enough, middle, low), ops.where(enough, high, middle)

    low, _ = ops.while_loop(
        lambda low, high: True,
        halve,
        (lowest, ops.zeros_like(lowest)),
        maximum_iterations=_HALVINGS,
    )
    keep = ops.logical_or(scaled > low[:, None], ops.isinf(limit)[:, None])
    return ops.where(keep, scaled, _EXCLUDED)


def exponential_noise(seed, step, size: int):
    """Gives draws from the exponential distribution of mean 1: float32 `(B, size)`, all > 0.

    A 32-bit counter hash (constants of Wellons' `triple32`), so that every backend and every
    compiler gives the same bits.

    Args:
        seed: uint32 `(B,)`.
        step: int scalar.
        size: draws per row.
    """
    seed = ops.cast(seed, "uint32")
    # The hash of 0 is 0, which would hand token 0 to seed 0; hence the constant.
    row = _mix(_mix(seed + ops.full_like(seed, 0x9E3779B9)) + ops.cast(step, "uint32"))[:, None]
    bits = _mix(_mix(row + ops.cast(ops.arange(size, dtype="int32"), "uint32")[None]) + row)
    # The fine end of the floats lies where the exponential is smallest, that is at the draws that
    # win: a token of probability 1e-9 keeps its chance.
    uniform = (ops.cast(bits, "float32") + 0.5) * 2.0**-32
    return -ops.log1p(-ops.minimum(uniform, 1.0 - 2.0**-24))


def _mix(x):
    for shift, factor in ((17, 0xED5AD4BB), (11, 0xAC4C1B51), (15, 0x31848BAB)):
        x = ops.bitwise_xor(x, ops.right_shift(x, ops.full_like(x, shift)))
        x = x * ops.full_like(x, factor)
    return ops.bitwise_xor(x, ops.right_shift(x, ops.full_like(x, 14)))
