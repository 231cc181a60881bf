"""The chain against brute force: every path written out.

Axes: B batch, T tokens, C tags.
"""

import functools
import itertools
import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from llama_keras.errors import InputError
from llama_keras.layers import LinearChainCRF
from tests.layers.longhand import numpy, on_tensorflow, weight

TAGS = 3
NEVER_AFTER = [[True, False, True], [True, True, True], [True, True, False]]
# Rows of one batch: full, right padding, left padding, holes, one token, none.
MASKS = np.array(
    [[1, 1, 1, 1], [1, 1, 1, 0], [0, 0, 1, 1], [1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], "bool"
)
CONSTRAINTS = {
    "free": {},
    "constrained": {
        "allowed_transitions": NEVER_AFTER,
        "allowed_starts": [True, False, True],
        "allowed_ends": [False, True, True],
    },
}


def plain(constraints: str, scale: float) -> LinearChainCRF:
    return LinearChainCRF(TAGS, **CONSTRAINTS[constraints], scale=scale)


@functools.cache
def graphed(constraints: str, scale: float) -> LinearChainCRF:
    """Gives a chain whose methods are graphs on TensorFlow, for all the tests that share it."""
    chain = plain(constraints, scale)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        emissions = tf.TensorSpec([None, None, TAGS])
        tags, mask = (tf.TensorSpec([None, None], dtype) for dtype in (tf.int32, tf.bool))
        for name in ("call", "log_likelihood", "log_partition", "marginals"):
            given = [emissions, tags, mask] if name == "log_likelihood" else [emissions, mask]
            setattr(chain, name, tf.function(getattr(chain, name), input_signature=given))
    return chain


def chain_of(constraints: str, *, seed=0, scale=1.0, make=graphed) -> LinearChainCRF:
    chain = make(constraints, scale)
    generator = np.random.default_rng(seed)
    for variable in chain.weights:
        variable.assign(generator.normal(size=variable.shape))
    return chain


def paths(chain, emissions):
    """Gives (score, path) of every legal path of one sentence `(T, C)` without padding."""
    transitions, start, end = (
        weight(getattr(chain, f"{name}_weight")) * chain.scale
        for name in ("transitions", "start", "end")
    )
    may, begins, ends = chain.allowed.values()
    for path in itertools.product(range(TAGS), repeat=len(emissions)):
        pairs = list(itertools.pairwise(path))
        if begins[path[0]] and ends[path[-1]] and all(may[a][b] for a, b in pairs):
            score = start[path[0]] + end[path[-1]] + sum(transitions[a, b] for a, b in pairs)
            yield score + sum(emissions[t, tag] for t, tag in enumerate(path)), path


def log_sum(scores) -> float:
    top = max(scores)
    return top + math.log(sum(math.exp(score - top) for score in scores))


def batch(seed=1, width=MASKS.shape[1]):
    generator = np.random.default_rng(seed)
    return (2 * generator.normal(size=(len(MASKS), width, TAGS))).astype("float32")


@pytest.mark.parametrize("constraints", CONSTRAINTS)
@pytest.mark.parametrize("scale", [1.0, 3.0])
class TestBruteForce:
    def test_log_partition(self, constraints, scale):
        chain, emissions = chain_of(constraints, scale=scale), batch()
        found = numpy(chain.log_partition(emissions, MASKS))
        for row, mask in enumerate(MASKS):
            every = [score for score, _ in paths(chain, emissions[row][mask])] if any(mask) else [0]
            assert found[row] == pytest.approx(log_sum(every), rel=1e-5, abs=1e-5)

    def test_log_likelihood_of_every_path(self, constraints, scale):
        chain, emissions = chain_of(constraints, scale=scale), batch()
        for row, mask in enumerate(MASKS[:5]):
            scored = dict((path, score) for score, path in paths(chain, emissions[row][mask]))
            total = log_sum(list(scored.values()))
            tags = np.full((len(scored), MASKS.shape[1]), -1, "int32")
            tags[:, mask] = list(scored)
            given = np.repeat(emissions[row : row + 1], len(scored), axis=0)
            masks = np.repeat(mask[None], len(scored), axis=0)
            found = numpy(chain.log_likelihood(given, tags, masks))
            np.testing.assert_allclose(found, np.array(list(scored.values())) - total, atol=2e-5)
            assert np.exp(found).sum() == pytest.approx(1.0, abs=1e-4)

    def test_best_path(self, constraints, scale):
        chain, emissions = chain_of(constraints, scale=scale), batch()
        found = numpy(chain(emissions, MASKS)).astype(int)
        for row, mask in enumerate(MASKS[:5]):
            assert tuple(found[row][mask]) == max(paths(chain, emissions[row][mask]))[1]
        assert not found[~MASKS].any()

    def test_marginals(self, constraints, scale):
        chain, emissions = chain_of(constraints, scale=scale), batch()
        found = numpy(chain.marginals(emissions, MASKS))
        for row, mask in enumerate(MASKS[:5]):
            scored = list(paths(chain, emissions[row][mask]))
            total = log_sum([score for score, _ in scored])
            expected = np.zeros((mask.sum(), TAGS))
            for score, path in scored:
                expected[np.arange(len(path)), path] += math.exp(score - total)
            np.testing.assert_allclose(found[row][mask], expected, atol=1e-5)
        assert not found[~MASKS].any()


def gradient(function, x):
    """Gives the gradient of a scalar on this backend."""
    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.grad(function)(ops.convert_to_tensor(x)))
    import tensorflow as tf

    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        result = function(x)
    return np.asarray(tape.gradient(result, x))


def test_gradient_is_what_is_expected_less_what_is_there():
    # d log Z / d emission = marginal; so of the loss: marginal - 1 at the right tag.
    chain, emissions = chain_of("constrained"), batch()
    tags = numpy(chain(emissions, MASKS)).astype("int32")
    found = gradient(lambda x: -ops.sum(chain.log_likelihood(x, tags, MASKS)), emissions)
    one_hot = np.eye(TAGS)[tags] * MASKS[..., None]
    expected = numpy(chain.marginals(emissions, MASKS)) - one_hot
    np.testing.assert_allclose(found, expected, atol=1e-5)


def surplus(chain, emissions, tags) -> dict[str, np.ndarray]:
    """Gives how often each weight counts over all paths, less how often in the given one."""
    found = {"transitions": np.zeros((TAGS, TAGS)), "start": np.zeros(TAGS), "end": np.zeros(TAGS)}

    def count(path, share):
        np.add.at(found["transitions"], (path[:-1], path[1:]), share)
        found["start"][path[0]] += share
        found["end"][path[-1]] += share

    for row, mask in enumerate(MASKS[:5]):
        scored = list(paths(chain, emissions[row][mask]))
        total = log_sum([score for score, _ in scored])
        for score, path in scored:
            count(np.array(path), math.exp(score - total))
        count(tags[row][mask], -1.0)
    return found


def test_gradient_of_transitions_against_differences():
    chain, emissions = chain_of("free"), batch(seed=3)
    tags = np.zeros(MASKS.shape, "int32")
    start = weight(chain.transitions_weight)
    expected = surplus(chain, emissions, tags)["transitions"]

    def loss(values):
        chain.transitions_weight.assign(values)
        return float(-numpy(chain.log_likelihood(emissions, tags, MASKS)).astype("float64").sum())

    step = 1e-2
    for place in itertools.product(range(TAGS), repeat=2):
        change = np.zeros((TAGS, TAGS))
        change[place] = step
        slope = (loss(start + change) - loss(start - change)) / (2 * step)
        assert slope == pytest.approx(expected[place], abs=2e-3)


@on_tensorflow
@pytest.mark.parametrize("constraints", CONSTRAINTS)
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_gradients_of_all_weights(constraints, scale):
    import tensorflow as tf

    chain, emissions = chain_of(constraints, scale=scale), batch(seed=3)
    tags = numpy(chain(batch(seed=4), MASKS)).astype("int32")  # legal, and not the likeliest
    weights = {name: getattr(chain, f"{name}_weight") for name in ("transitions", "start", "end")}
    with tf.GradientTape() as tape:
        loss = -ops.sum(chain.log_likelihood(emissions, tags, MASKS))
    found = tape.gradient(loss, {name: variable.value for name, variable in weights.items()})
    for name, expected in surplus(chain, emissions, tags).items():
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(numpy(found[name]), scale * expected, atol=1e-4, err_msg=name)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(0, 2**31), st.sampled_from(sorted(CONSTRAINTS)))
def test_padding_changes_nothing(length, seed, constraints):
    chain = chain_of(constraints, seed=seed)
    emissions = np.random.default_rng(seed).normal(size=(1, length, TAGS)).astype("float32")
    mask = np.ones((1, length), "bool")
    wide = np.pad(emissions, ((0, 0), (1, 2), (0, 0)), constant_values=7.0)
    wide_mask = np.pad(mask, ((0, 0), (1, 2)))
    best = numpy(chain(emissions, mask))
    assert (numpy(chain(wide, wide_mask))[:, 1:-2] == best).all()
    tags = best.astype("int32")
    wide_tags = np.pad(tags, ((0, 0), (1, 2)), constant_values=-1)
    a = numpy(chain.log_likelihood(emissions, tags, mask))
    b = numpy(chain.log_likelihood(wide, wide_tags, wide_mask))
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_all_tokens_count_by_default():
    chain, emissions = chain_of("free", make=plain), batch(width=2)
    tags, mask = np.zeros((len(MASKS), 2), "int32"), np.ones((len(MASKS), 2), "bool")
    for function in (chain, chain.log_partition, chain.marginals):
        np.testing.assert_allclose(
            numpy(function(emissions)), numpy(function(emissions, mask)), rtol=1e-6
        )
    found, expected = (chain.log_likelihood(emissions, tags, m) for m in (None, mask))
    np.testing.assert_allclose(numpy(found), numpy(expected), rtol=1e-6)


def test_without_weights_it_only_keeps_sequences_legal():
    chain = LinearChainCRF(2, allowed_starts=[True, False], learned=False)
    assert chain.weights == []
    emissions = np.array([[[0.0, 5.0], [0.0, 1.0]]], "float32")
    assert numpy(chain(emissions)).tolist() == [[0, 1]]
    np.testing.assert_allclose(
        numpy(chain.marginals(emissions))[0, 1], np.exp([0, 1]) / np.exp([0, 1]).sum(), rtol=1e-5
    )


def test_long_texts_lose_no_precision():
    length = 4000
    chain = chain_of("free")
    one = batch(seed=5)[:1, :4]
    mask = np.ones((1, length), "bool")
    long = np.tile(one, (1, length // 4, 1)) + 50.0  # sums of 200,000: float32 ends at 0.02 there
    marginals = numpy(chain.marginals(long, mask))[0, 2000:2004]
    near = numpy(chain.marginals(np.tile(one, (1, 11, 1)), mask[:, :44]))[0, 20:24]
    np.testing.assert_allclose(marginals, near, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "mixed_bfloat16", "float16"])
def test_sums_are_in_float32(dtype):
    chain = LinearChainCRF(TAGS, dtype=dtype)
    emissions = ops.cast(batch(), dtype.removeprefix("mixed_"))
    for found in (chain.log_partition(emissions, MASKS), chain.marginals(emissions, MASKS)):
        assert keras.backend.standardize_dtype(found.dtype) == "float32"


def test_compiled_equals_plain():
    chain, emissions = chain_of("constrained", make=plain), batch()
    tags = numpy(chain(emissions, MASKS)).astype("int32")

    def all_of(emissions, tags, masks):
        best, marginals = chain(emissions, masks), chain.marginals(emissions, masks)
        return best, marginals, chain.log_likelihood(emissions, tags, masks)

    if keras.backend.backend() == "jax":
        import jax

        compiled = [jax.jit(all_of)]
    else:
        import tensorflow as tf

        unknown = [tf.TensorSpec([None, None, TAGS]), *(tf.TensorSpec([None, None], t) for t in
                   (tf.int32, tf.bool))]  # fmt: skip
        compiled = [
            tf.function(all_of, jit_compile=True),
            tf.function(all_of, input_signature=unknown),
        ]
    expected = all_of(emissions, tags, MASKS)
    for function in compiled:
        for a, b in zip(expected, function(emissions, tags, MASKS), strict=True):
            np.testing.assert_allclose(numpy(a), numpy(b), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_tags": 0}, "num_tags must be positive"),
        ({"num_tags": 2, "allowed_starts": [True]}, "allowed_starts must have num_tags=2"),
        ({"num_tags": 2, "allowed_transitions": [[True], [True]]}, "allowed_transitions"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        LinearChainCRF(**arguments)
