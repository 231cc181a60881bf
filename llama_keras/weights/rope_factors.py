"""The llama3 rotary scaling behind the divisors that a GGUF file stores."""

import math
from typing import Any

import numpy as np

from llama_keras.errors import InputError

# What Meta released: factor 8 (Llama 3.1) or 32 (Llama 3.2) with these three numbers. GGUF files
# hold only the resulting divisors, so the numbers are assumed and then checked.
RELEASED = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
TOLERANCE = 1e-4
_GGUF_NAMES = {"original_max_position_embeddings": "original_context_length"}


def llama3_factors(scaling: dict[str, Any], *, head_dim: int, max_wavelength: float) -> np.ndarray:
    """Divisors of the rotary frequencies under llama3 scaling.

    Args:
        scaling: factor, low_freq_factor, high_freq_factor, original_max_position_embeddings.
        head_dim: D.
        max_wavelength: The base of the rotary frequencies (rope_theta).

    Returns:
        float64 (D/2,), from 1 (short waves) to factor (long waves).
    """
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    factor, context = scaling["factor"], scaling["original_max_position_embeddings"]
    frequencies = max_wavelength ** -(np.arange(0, head_dim, 2) / head_dim)
    turns = context * frequencies / (2 * math.pi)  # waves that fit in the original context
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return 1.0 / ((1.0 - smooth) / factor + smooth)


def llama3_scaling(
    factors: np.ndarray,
    *,
    head_dim: int,
    max_wavelength: float,
    stated: dict[str, Any],
    path: Any,
) -> dict[str, Any]:
    """The `rope_scaling` argument that gives these divisors.

    Args:
        factors: (D/2,) from the tensor rope_freqs.weight.
        head_dim: D.
        max_wavelength: The base of the rotary frequencies.
        stated: Numbers that the metadata gives, by their names in it; they go before Meta's.
        path: For messages.

    Returns:
        rope_type "llama3" with its four numbers.

    Raises:
        InputError: The divisors do not follow the llama3 formula.
    """
    factor = stated.get("factor") or _rounded(float(np.max(factors)))
    scaling: dict[str, Any] = {"rope_type": "llama3", "factor": float(factor)}
    for name, released in RELEASED.items():
        scaling[name] = type(released)(stated.get(_GGUF_NAMES.get(name, name)) or released)
    expected = llama3_factors(scaling, head_dim=head_dim, max_wavelength=max_wavelength)
    if factors.shape != expected.shape:
        raise InputError(
            f"GGUF file '{path}': rope_freqs.weight has {factors.size} values, but the head "
            f"size {head_dim} needs {head_dim // 2}."
        )
    if not np.allclose(factors, expected, rtol=TOLERANCE, atol=0.0):
        numbers = ", ".join(f"{k} {v:g}" for k, v in scaling.items() if k != "rope_type")
        raise InputError(
            f"GGUF file '{path}': rope_freqs.weight does not follow the llama3 formula with "
            f"{numbers}, so its rotary scaling is not known. Load the Hugging Face checkpoint of "
            "this model instead (its config.json states the scaling)."
        )
    return scaling


def _rounded(value: float) -> float:
    # float32 arithmetic leaves 31.999998; whole factors are what people release.
    return round(value) if abs(value - round(value)) <= TOLERANCE * value else value
