import keras
import numpy as np
import pytest
from keras import ops

from llama_keras.errors import InputError
from llama_keras.layers.rotary import (
    ROPE_TYPES,
    RotaryEmbedding,
    apply_rotary,
    check_rope_scaling,
    inverse_frequencies,
)
from tests.layers import longhand
from tests.layers.longhand import numpy

LINEAR = {"rope_type": "linear", "factor": 4.0}
# Head size 16 at this context gives kept, blended and stretched pairs alike.
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}
SCALINGS = {"none": None, "default": {"rope_type": "default"}, "linear": LINEAR, "llama3": LLAMA3}


def test_every_rope_type_is_tested():
    assert set(ROPE_TYPES) == {s["rope_type"] for s in SCALINGS.values() if s}


@pytest.mark.parametrize("wavelength", [10000.0, 500000.0])
@pytest.mark.parametrize("scaling", SCALINGS.values(), ids=SCALINGS)
def test_frequencies_equal_longhand(scaling, wavelength):
    got = inverse_frequencies(16, max_wavelength=wavelength, rope_scaling=scaling)
    expected = [longhand.frequency(i, 16, wavelength, scaling) for i in range(8)]
    assert got.dtype == "float32"
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_llama3_has_all_three_bands():
    ratio = inverse_frequencies(16, rope_scaling=LLAMA3) / inverse_frequencies(16)
    assert np.any(ratio == 1.0) and np.any(np.isclose(ratio, 1 / 8))
    assert np.any((ratio > 0.13) & (ratio < 0.99))


@pytest.mark.parametrize("scaling", SCALINGS.values(), ids=SCALINGS)
def test_turned_vectors_equal_longhand(scaling):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(2, 5, 3, 16))
    positions = np.array([[0, 1, 2, 3, 4], [7, 0, 300, 2047, 12]])
    rotary = RotaryEmbedding(16, max_wavelength=10000.0, rope_scaling=scaling)
    cos, sin = rotary(ops.convert_to_tensor(positions, dtype="int32"))
    got = apply_rotary(ops.convert_to_tensor(x, dtype="float32"), cos, sin)
    expected = np.empty_like(x)
    for row, t, head in np.ndindex(2, 5, 3):
        expected[row, t, head] = longhand.turn(
            x[row, t, head], int(positions[row, t]), 10000.0, scaling
        )
    # Angles up to 2047 are held in float32: their error is 2047 x 2^-24.
    np.testing.assert_allclose(numpy(got), expected, atol=5e-4)


def test_scores_depend_on_the_distance_alone():
    generator = np.random.default_rng(1)
    query, key = generator.normal(size=(2, 1, 1, 1, 8)).astype("float32")
    rotary = RotaryEmbedding(8)

    def score(at, to):
        turned = []
        for x, position in ((query, at), (key, to)):
            cos, sin = rotary(ops.convert_to_tensor([[position]], dtype="int32"))
            turned.append(apply_rotary(ops.convert_to_tensor(x), cos, sin))
        return float(numpy(ops.sum(turned[0] * turned[1])))

    assert score(9, 4) == pytest.approx(score(105, 100), abs=1e-4)
    assert score(9, 4) != pytest.approx(score(9, 5), abs=1e-2)


def test_long_positions_keep_float32_angles_in_half_precision():
    positions = ops.convert_to_tensor([[4001]], dtype="int32")
    exact = RotaryEmbedding(8)(positions)
    half = RotaryEmbedding(8, dtype="bfloat16")(positions)
    for a, b in zip(exact, half, strict=True):
        assert keras.backend.standardize_dtype(b.dtype) == "bfloat16"
        np.testing.assert_allclose(numpy(a), numpy(b), atol=4e-3)


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"rope_type": "yarn", "factor": 2.0}, r"'yarn'.*\['default', 'linear', 'llama3'\]"),
        ({"factor": 2.0}, "rope_type=None"),
        ({"rope_type": "linear"}, r"takes \['factor'\]; received \[\]"),
        ({"rope_type": "default", "factor": 2.0}, r"received \['factor'\]"),
        ({**LINEAR, "beta_fast": 32}, "beta_fast"),
        ({"rope_type": "linear", "factor": 0.0}, r"'factor'.*positive.*0\.0"),
        ({"rope_type": "linear", "factor": "4"}, "positive number; received '4'"),
        ({"rope_type": "linear", "factor": float("nan")}, "nan"),
        ({k: v for k, v in LLAMA3.items() if k != "factor"}, "'factor'"),
        ({**LLAMA3, "high_freq_factor": 1.0}, "high_freq_factor must be greater"),
    ],
)
def test_bad_scaling_is_refused(scaling, message):
    with pytest.raises(InputError, match=message):
        RotaryEmbedding(8, rope_scaling=scaling)


def test_odd_head_is_refused():
    with pytest.raises(InputError, match="even head_dim; received 7"):
        RotaryEmbedding(7)


def test_check_gives_a_copy():
    scaling = dict(LINEAR)
    checked = check_rope_scaling(scaling)
    scaling["factor"] = 2.0
    assert checked == LINEAR


def test_config_round_trip():
    layer = RotaryEmbedding(16, max_wavelength=5e5, rope_scaling=LLAMA3)
    again = RotaryEmbedding.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    positions = np.arange(9)[None]
    for a, b in zip(layer(positions), again(positions), strict=True):
        np.testing.assert_array_equal(numpy(a), numpy(b))
