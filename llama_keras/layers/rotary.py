"""Rotary positions: which frequencies a checkpoint uses, and how they turn queries and keys.

Axes: B batch, T tokens, H heads, D head size.
"""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from llama_keras.errors import InputError


def _default(frequencies: np.ndarray, scaling: dict) -> np.ndarray:
    return frequencies


def _linear(frequencies: np.ndarray, scaling: dict) -> np.ndarray:
    return frequencies / scaling["factor"]


def _llama3(frequencies: np.ndarray, scaling: dict) -> np.ndarray:
    """Slow turns are stretched, fast ones kept, those between blended (Llama 3.1 release)."""
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return frequencies * (kept + (1.0 - kept) / scaling["factor"])


# rope_type -> (how the plain frequencies change, the numbers it needs)
ROPE_TYPES = {
    "default": (_default, ()),
    "linear": (_linear, ("factor",)),
    "llama3": (
        _llama3,
        ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    ),
}


def check_rope_scaling(rope_scaling: dict | None) -> dict:
    """Gives the scaling as a plain dict with just the numbers its `rope_type` needs.

    Args:
        rope_scaling: `None` or a dict with `rope_type` (one of `ROPE_TYPES`) and its numbers.

    Raises:
        InputError: the type is unknown, a number is missing, not positive, or not asked for.
    """
    scaling: dict[str, Any] = dict(rope_scaling or {"rope_type": "default"})
    kind = scaling.get("rope_type")
    if kind not in ROPE_TYPES:
        raise InputError(
            f"rope_scaling has rope_type={kind!r}; expected one of {sorted(ROPE_TYPES)}."
        )
    _, needed = ROPE_TYPES[kind]
    if set(scaling) != {"rope_type", *needed}:
        raise InputError(
            f"rope_scaling of type {kind!r} takes {sorted(needed)}; "
            f"received {sorted(set(scaling) - {'rope_type'})}."
        )
    for key in needed:
        if not (isinstance(scaling[key], (int, float)) and scaling[key] > 0):
            raise InputError(
                f"rope_scaling[{key!r}] must be a positive number; received {scaling[key]!r}."
            )
    if kind == "llama3" and scaling["high_freq_factor"] <= scaling["low_freq_factor"]:
        raise InputError("rope_scaling: high_freq_factor must be greater than low_freq_factor.")
    return scaling


def inverse_frequencies(
    head_dim: int, *, max_wavelength: float = 10000.0, rope_scaling: dict | None = None
) -> np.ndarray:
    """Gives the turn per position, in radians, of each feature pair: float32 `(D / 2,)`.

    Source: RoFormer, arXiv 2104.09864, equation 15; scaling as in the Llama 3.1 release.
    """
    scaling = check_rope_scaling(rope_scaling)
    plain = max_wavelength ** (-np.arange(0, head_dim, 2, dtype="float64") / head_dim)
    change, _ = ROPE_TYPES[scaling["rope_type"]]
    return change(plain, scaling).astype("float32")


def apply_rotary(x, cos, sin):
    """Turns the feature pairs `(i, i + D / 2)` of `x`.

    The halves are paired as in Hugging Face checkpoints, not interleaved as in Meta's files.

    Args:
        x: `(B, T, H, D)`.
        cos: cosines of the angles, `(B, T, D)`.
        sin: sines of the angles, the first half negated (see `RotaryEmbedding`), `(B, T, D)`.
    """
    first, second = ops.split(x, 2, axis=-1)
    swapped = ops.concatenate([second, first], axis=-1)
    return x * ops.expand_dims(cos, 2) + swapped * ops.expand_dims(sin, 2)


@keras.saving.register_keras_serializable(package="llama_keras")
class RotaryEmbedding(keras.layers.Layer):
    """Gives the cosines and sines that turn queries and keys at their positions.

    They are computed in float32 once per forward pass and shared by all layers.

    Args:
        head_dim: features of one head; even.
        max_wavelength: base of the frequencies.
        rope_scaling: `None` or a dict, see `check_rope_scaling`.

    Call arguments:
        positions: int `(B, T)`.

    Returns:
        Two tensors `(B, T, D)` in the layer's compute dtype: cosines, and sines with the first
        half negated, so that `apply_rotary` needs no negation of its own.

    Example:
    ```python
    cos, sin = RotaryEmbedding(head_dim=64)(keras.ops.arange(8)[None])
    ```
    """

    def __init__(
        self,
        head_dim: int,
        *,
        max_wavelength: float = 10000.0,
        rope_scaling: dict | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if head_dim % 2:
            raise InputError(f"Rotary positions need an even head_dim; received {head_dim}.")
        self.head_dim = head_dim
        self.max_wavelength = max_wavelength
        self.rope_scaling = check_rope_scaling(rope_scaling)
        self._frequencies = inverse_frequencies(
            head_dim, max_wavelength=max_wavelength, rope_scaling=self.rope_scaling
        )

    def call(self, positions):
        """Computes both tables; see the class."""
        angles = ops.expand_dims(ops.cast(positions, "float32"), -1) * self._frequencies
        cos, sin = ops.cos(angles), ops.sin(angles)
        return (
            ops.cast(ops.concatenate([cos, cos], axis=-1), self.compute_dtype),
            ops.cast(ops.concatenate([-sin, sin], axis=-1), self.compute_dtype),
        )

    def compute_output_spec(self, positions):
        """Gives the shapes of both tables without computing them."""
        spec = keras.KerasTensor((*positions.shape, self.head_dim), dtype=self.compute_dtype)
        return spec, keras.KerasTensor(spec.shape, dtype=self.compute_dtype)

    def get_config(self):
        """Gives the arguments of the constructor."""
        return {
            **super().get_config(),
            "head_dim": self.head_dim,
            "max_wavelength": self.max_wavelength,
            "rope_scaling": dict(self.rope_scaling),
        }
