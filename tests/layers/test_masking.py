import itertools

import keras
import numpy as np
import pytest

from llama_keras.errors import InputError
from llama_keras.layers import AttentionBias, TokenPositions
from llama_keras.layers.masking import MASK_MODES, SHARED_SEGMENT, prefix_mask
from tests.layers.longhand import numpy

IDS = np.zeros((2, 6), "int32")
PADDING = np.array([[0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
SEGMENTS = np.array([[1, 1, 2, 2, 2, 3], [5, 5, 5, 5, 0, 0]])
PREFIX = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0]])


def given(mode):
    return {"prefix_mask": PREFIX} if mode == "prefix" else {}


def seen(mode, padding=None, segments=None):
    bias = numpy(AttentionBias(mode)(IDS, padding, segments, **given(mode)))
    assert bias.dtype == "float32" and np.isfinite(bias).all()
    return np.broadcast_to(bias == 0.0, (2, 1, 6, 6))[:, 0]


@pytest.mark.parametrize("mode", MASK_MODES)
@pytest.mark.parametrize("padding", [None, PADDING], ids=["full", "padded"])
@pytest.mark.parametrize("segments", [None, SEGMENTS], ids=["one", "packed"])
def test_bias_equals_longhand(mode, padding, segments):
    got = seen(mode, padding, segments)
    for row, t, s in itertools.product(range(2), range(6), range(6)):
        expected = (
            (
                mode == "bidirectional"
                or s <= t
                or (mode == "prefix" and PREFIX[row, s] and PREFIX[row, t])
            )
            and (padding is None or padding[row, s] == 1)
            and (segments is None or segments[row, s] == segments[row, t])
        )
        assert got[row, t, s] == expected, (row, t, s)


def test_the_shared_segment_is_seen_by_all_and_sees_none():
    segments = np.array([[SHARED_SEGMENT, SHARED_SEGMENT, 1, 1, 2, 0]])
    bias = numpy(AttentionBias("causal")(np.zeros((1, 6), "int32"), None, segments))
    wanted = ["100000", "110000", "111000", "111100", "110010", "110001"]
    assert ["".join(map(str, row)) for row in (bias[0, 0] == 0.0).astype(int)] == wanted


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "mixed_bfloat16"])
def test_bias_is_finite_in_every_dtype(dtype):
    layer = AttentionBias("causal", dtype=dtype)
    bias = layer(IDS, PADDING)
    assert keras.backend.standardize_dtype(bias.dtype) == layer.compute_dtype
    assert np.isfinite(numpy(bias)).all()


def test_bool_and_int_padding_agree():
    np.testing.assert_array_equal(seen("causal", PADDING), seen("causal", PADDING.astype("bool")))


def test_unknown_mode_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"'upper'.*\['causal', 'bidirectional', 'prefix'\]"):
        AttentionBias("upper")


@pytest.mark.parametrize("mode", MASK_MODES)
def test_a_prefix_is_given_where_it_is_needed_and_nowhere_else(mode):
    wrong = {} if mode == "prefix" else {"prefix_mask": PREFIX}
    says = "needs 'prefix_mask'" if mode == "prefix" else "takes no 'prefix_mask'"
    with pytest.raises(InputError, match=says):
        AttentionBias(mode)(IDS, PADDING, **wrong)


def test_prefix_mask_counts_real_tokens():
    got = numpy(prefix_mask(np.array([3, 2]), PADDING)).tolist()
    assert got == [[0, 0, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0]]
    assert not numpy(prefix_mask(np.array([0, 0]), PADDING)).any()
    np.testing.assert_array_equal(numpy(prefix_mask(np.array([9, 9]), PADDING)), PADDING)


def positions(**rows):
    return numpy(TokenPositions()(IDS, **rows)).tolist()


def test_positions_count_from_the_first_real_token():
    assert positions() == [[0, 1, 2, 3, 4, 5]] * 2
    assert positions(padding_mask=PADDING)[0][2:] == [0, 1, 2, 3]
    assert positions(padding_mask=PADDING)[1][:3] == [0, 1, 2]


def test_positions_start_anew_in_each_segment():
    assert positions(segment_ids=SEGMENTS, padding_mask=PADDING)[0] == [0, 1, 0, 1, 2, 0]


def test_given_positions_pass_through():
    given = np.arange(12).reshape(2, 6)[:, ::-1]
    got = TokenPositions()(IDS, padding_mask=PADDING, segment_ids=SEGMENTS, positions=given)
    assert keras.backend.standardize_dtype(got.dtype) == "int32"
    assert numpy(got).tolist() == given.tolist()


@pytest.mark.parametrize("rows", [{}, {"padding_mask": PADDING}, {"segment_ids": SEGMENTS}])
def test_specs_equal_the_computed_shapes(rows):
    biases = [(AttentionBias(mode), given(mode)) for mode in MASK_MODES]
    for layer, more in [*biases, (TokenPositions(), {})]:
        spec = keras.KerasTensor((2, 6), "int32")
        symbolic = {name: keras.KerasTensor((2, 6), "int32") for name in (*rows, *more)}
        expected = layer.compute_output_spec(spec, **symbolic)
        got = layer(IDS, **rows, **more)
        assert tuple(got.shape) == expected.shape
        assert keras.backend.standardize_dtype(got.dtype) == expected.dtype
