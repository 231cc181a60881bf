import numpy as np
import pytest

from llama_keras.errors import InputError
from llama_keras.weights.gguf import GGUFFile, gguf_config
from llama_keras.weights.rope_factors import llama3_factors, llama3_scaling
from tests.weights.gguf_files import write_llama


def released(factor: float) -> dict:
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


def reference(factor: float, head_dim: int, base: float) -> np.ndarray:
    """`rope_factors` of llama.cpp's convert_hf_to_gguf.py, in float32 as it is there."""
    frequencies = 1.0 / (base ** (np.arange(0, head_dim, 2, dtype="float32") / head_dim))
    factors = []
    for wavelength in 2 * np.pi / frequencies:
        if wavelength < 8192 / 4.0:
            factors.append(1.0)
        elif wavelength > 8192 / 1.0:
            factors.append(factor)
        else:
            smooth = (8192 / wavelength - 1.0) / (4.0 - 1.0)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.asarray(factors, "float32")


@pytest.mark.parametrize("factor", [8.0, 32.0])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_released_factors_are_recovered(factor, head_dim):
    factors = reference(factor, head_dim, 500000.0)
    shape = {"head_dim": head_dim, "max_wavelength": 500000.0}
    assert llama3_scaling(factors, **shape, stated={}, path="x") == released(factor)
    np.testing.assert_allclose(llama3_factors(released(factor), **shape), factors, rtol=1e-5)


@pytest.mark.parametrize("change", [1.001, 0.999])
def test_other_factors_are_refused(change):
    factors = reference(8.0, 64, 500000.0)
    factors[20] *= change
    with pytest.raises(InputError, match="does not follow the llama3 formula"):
        llama3_scaling(factors, head_dim=64, max_wavelength=500000.0, stated={}, path="x")


def test_a_wrong_number_of_factors_is_refused():
    with pytest.raises(InputError, match="has 32 values, but the head size 128 needs 64"):
        llama3_scaling(np.ones(32), head_dim=128, max_wavelength=1e4, stated={}, path="x")


def test_unstated_other_numbers_are_refused_in_a_file(tmp_path):
    keys = {"llama.rope.scaling.original_context_length": None}
    file = GGUFFile(write_llama(tmp_path / "x.gguf", "llama3_rope", keys=keys))
    with pytest.raises(InputError, match="Load the Hugging Face checkpoint"):
        gguf_config(file)


def test_factors_and_linear_scaling_cannot_both_hold(tmp_path):
    keys = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0}
    file = GGUFFile(write_llama(tmp_path / "x.gguf", "llama3_rope", keys=keys))
    with pytest.raises(InputError, match="only one of them can hold"):
        gguf_config(file)
