"""Random numbers that depend on (seed, stream, index, position) and on nothing else.

TensorFlow's stateless generators take one seed a call, so what they draw for a row depends on the
shape of its batch. Here each row has a SplitMix64 sequence of its own (Steele, Lea and Flood 2014,
"Fast splittable pseudorandom number generators"), whose t-th number is computed from t alone.

Axes: B rows, T tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio, made odd
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31
_ALL = (1 << 64) - 1


def random_bits(seed: int, *, stream: int, index: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Gives 64 random bits for each position.

    Args:
        seed: any whole number.
        stream: sets apart numbers that are drawn for different ends.
        index: (B,) int64, the number of each example.
        positions: (B, T) integers from 0, the place of each token in its example.

    Returns:
        (B, T) uint64.
    """
    key = _mix_number(_mix_number(seed) + stream * _GOLDEN)
    row = _mixed(tf.bitcast(tf.cast(index, tf.int64), tf.uint64) + _word(key))
    step = tf.cast(positions + 1, tf.uint64) * _word(_GOLDEN)
    return _mixed(row[:, tf.newaxis] + step)


def uniform(bits: tf.Tensor) -> tf.Tensor:
    """Gives float64 in [0, 1) out of uint64 `bits`, in steps of 2^-53."""
    return tf.cast(tf.bitwise.right_shift(bits, _word(11)), tf.float64) * 2.0**-53


def below(bits: tf.Tensor, *, limit: int) -> tf.Tensor:
    """Gives int32 from 0 to `limit` - 1 out of uint64 `bits`, uneven by `limit` / 2^32 at most."""
    high = tf.bitwise.right_shift(bits, _word(32))
    return tf.cast(tf.bitwise.right_shift(high * _word(limit), _word(32)), tf.int32)


def _mixed(bits: tf.Tensor) -> tf.Tensor:
    for shift, factor in _MIX:
        bits = tf.bitwise.bitwise_xor(bits, tf.bitwise.right_shift(bits, _word(shift)))
        bits *= _word(factor)
    return tf.bitwise.bitwise_xor(bits, tf.bitwise.right_shift(bits, _word(_LAST_SHIFT)))


def _mix_number(bits: int) -> int:
    bits &= _ALL
    for shift, factor in _MIX:
        bits = (bits ^ bits >> shift) * factor & _ALL
    return bits ^ bits >> _LAST_SHIFT


def _word(number: int) -> Any:
    return tf.constant(np.uint64(number & _ALL), tf.uint64)
