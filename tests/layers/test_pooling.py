import keras
import numpy as np
import pytest
from keras import ops

from llama_keras.errors import InputError
from llama_keras.layers import Pooling
from tests.layers.longhand import numpy

LENGTHS = (5, 1, 3)
SIDES = {"right": lambda n: [1] * n + [0] * (5 - n), "left": lambda n: [0] * (5 - n) + [1] * n}


@pytest.fixture
def hidden():
    return np.random.default_rng(0).normal(size=(3, 5, 4)).astype("float32")


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("mode", "longhand"),
    [("last", lambda tokens: tokens[-1]), ("mean", lambda tokens: sum(tokens) / len(tokens))],
)
def test_pools_the_real_tokens(hidden, mode, longhand, side):
    mask = np.array([SIDES[side](n) for n in LENGTHS])
    for typed in (mask, mask.astype("bool")):
        got = numpy(Pooling(mode)(hidden, typed))
        expected = [
            longhand([h for h, m in zip(*row, strict=True) if m])
            for row in zip(hidden, mask, strict=True)
        ]
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mode", ["last", "mean"])
def test_a_row_of_padding_gives_no_nan(hidden, mode):
    assert np.isfinite(numpy(Pooling(mode)(hidden, np.zeros((3, 5))))).all()


def test_mean_in_bfloat16_keeps_small_terms():
    # In bfloat16, 1 + 1 + ... stops growing at 256.
    hidden = ops.ones((1, 1000, 1), dtype="bfloat16")
    pooled = Pooling("mean", dtype="bfloat16")(hidden, np.ones((1, 1000)))
    assert keras.backend.standardize_dtype(pooled.dtype) == "bfloat16"
    assert float(numpy(pooled)[0, 0]) == 1.0


def test_unknown_mode_is_refused():
    with pytest.raises(InputError, match=r"'max'.*\['last', 'mean'\]"):
        Pooling("max")
