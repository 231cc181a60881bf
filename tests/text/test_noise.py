import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import chisquare

from llama_keras.text.noise import below, random_bits, uniform
from tests.text import noise_by_hand as by_hand
from tests.text.noise_by_hand import ALL

# Fixed seeds: a test that holds once holds always. 1e-4 is a chance of one in ten thousand.
LEAST_P = 1e-4


def bits(*, seed=0, stream=0, index=(0,), count=1):
    positions = np.zeros((len(index), 1), "int64") + np.arange(count)
    index = tf.constant(index, tf.int64)
    return random_bits(seed, stream=stream, index=index, positions=tf.constant(positions)).numpy()


def p_of(values, *, bins):
    return chisquare(np.bincount(np.ravel(values), minlength=bins)).pvalue


def pair_p(first, second, *, bins=16):
    """How likely the pairs of upper bits are so even if the two have nothing in common."""
    first, second = (np.ravel(x) >> np.uint64(60) for x in (first, second))
    return p_of((first * np.uint64(bins) + second).astype(int), bins=bins * bins)


def test_first_numbers_are_those_that_are_published():
    # From state 1234567, as in Rosetta Code.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert by_hand.split_mix_64(1234567, 3) == published


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63, 10**30])
def test_bits_equal_whole_number_arithmetic(seed):
    index = [0, 1, 5, -1, 2**63 - 1, -(2**63)]
    for stream in (0, 3):
        expected = [by_hand.random_bits(seed, stream=stream, index=at, count=7) for at in index]
        assert bits(seed=seed, stream=stream, index=index, count=7).tolist() == expected


def test_each_number_depends_on_its_own_place_alone():
    whole = bits(index=[4, 9, 2], count=50)
    assert (bits(index=[2, 4], count=10) == whole[[2, 0], :10]).all()


@pytest.mark.parametrize("shift", [0, 8, 24, 56])
@pytest.mark.parametrize("along", ["position", "index", "seed", "stream"])
def test_bytes_are_even(along, shift):
    found = {
        "position": lambda: bits(count=100_000),
        "index": lambda: bits(index=np.arange(100_000)),
        "seed": lambda: [bits(seed=seed, count=100) for seed in range(300)],
        "stream": lambda: [bits(stream=stream, count=100) for stream in range(300)],
    }[along]()
    values = (np.asarray(found) >> np.uint64(shift)) & np.uint64(255)
    assert p_of(values.astype(int), bins=256) > LEAST_P


def test_neighbours_do_not_hang_together():
    found = bits(index=np.arange(400), count=400)
    other_seed = bits(seed=1, index=np.arange(400), count=400)
    other_stream = bits(stream=1, index=np.arange(400), count=400)
    pairs = {
        "position": (found[:, :-1], found[:, 1:]),
        "index": (found[:-1], found[1:]),
        "diagonal": (found[:-1, 1:], found[1:, :-1]),
        "seed": (found, other_seed),
        "stream": (found, other_stream),
    }
    assert {name: p for name, pair in pairs.items() if (p := pair_p(*pair)) < LEAST_P} == {}
    distinct = {
        *found.ravel().tolist(),
        *other_seed.ravel().tolist(),
        *other_stream.ravel().tolist(),
    }
    assert len(distinct) == 3 * 400 * 400


def test_uniform_covers_zero_to_one():
    ends = tf.constant([0, ALL, 1 << 63], tf.uint64)
    assert uniform(ends).numpy().tolist() == [0.0, 1.0 - 2.0**-53, 0.5]
    found = uniform(tf.constant(bits(count=100_000))).numpy()
    assert abs(found.mean() - 0.5) < 5 * (1 / 12 / found.size) ** 0.5
    assert p_of((found * 1000).astype(int), bins=1000) > LEAST_P


@pytest.mark.parametrize("limit", [1, 3, 1000, 128256])
def test_below_gives_each_number_alike(limit):
    ends = tf.constant([0, ALL], tf.uint64)
    assert below(ends, limit=limit).numpy().tolist() == [0, limit - 1]
    found = below(tf.constant(bits(count=200_000)), limit=limit).numpy()
    bins = min(limit, 1000)
    assert limit == 1 or p_of(found * bins // limit, bins=bins) > LEAST_P
