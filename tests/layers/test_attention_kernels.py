from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from llama_keras.errors import InputError
from llama_keras.layers import DotProduct, GaussianKernel
from llama_keras.layers.attention_kernels import (
    KERNELS,
    AttentionKernel,
    get_kernel,
    kernel_config,
)
from tests.layers import longhand
from tests.layers.longhand import load_model, numpy

KERNEL_CASES = {
    "dot product": DotProduct,
    "normalized": GaussianKernel,
    "cold": lambda **more: GaussianKernel(temperature=0.3, **more),
    "unnormalized": lambda **more: GaussianKernel(normalize=False, **more),
    "warm unnormalized": lambda **more: GaussianKernel(temperature=2.5, normalize=False, **more),
    "learned": lambda **more: GaussianKernel(temperature=0.7, learned_temperature=True, **more),
}
QUIET: Any = 0  # Keras annotates `verbose` as str
HEADS = {"one": (1, 1), "multi-head": (4, 4), "grouped": (6, 2), "multi-query": (4, 1)}


def rows(heads=4, kv_heads=2, *, batch=2, length=5, slots=None, size=6) -> Any:
    """Gives query, key and value, keys near some queries."""
    generator = np.random.default_rng(8)
    slots = slots or length
    shapes = ((batch, length, heads), (batch, slots, kv_heads), (batch, slots, kv_heads))
    return [generator.normal(size=(*shape, size)).astype("float32") for shape in shapes]


def oracle(kernel, query, key, value, mask=None):
    """Attends row by row, head by head: float64 outputs `(B, T, H, D)` and weights `(B, H, T, S)`.

    The formula of each weight is `longhand.kernel_weights`.
    """
    batch, length, heads, _ = query.shape
    slots, groups = key.shape[1], heads // key.shape[2]
    weights = np.zeros((batch, heads, length, slots))
    for row, head, t in np.ndindex(batch, heads, length):
        seen = range(slots) if mask is None else np.flatnonzero(mask[row, 0, t])
        if len(seen):
            keys = [key[row, s, head // groups].astype("float64") for s in seen]
            one = query[row, t, head].astype("float64")
            weights[row, head, t, seen] = longhand.kernel_weights(kernel, one, keys)
    values = np.repeat(value, groups, axis=2)
    return np.einsum("bhts,bshd->bthd", weights, values), weights


def some_mask(batch=2, length=5, slots=None):
    """Causal, and the second row has padding on its left: its first token sees nothing."""
    mask = np.tril(np.ones((batch, 1, length, slots or length), "bool"))
    mask[1, :, :, 0] = False
    return mask


@pytest.mark.parametrize("masked", [False, True], ids=["full", "masked"])
@pytest.mark.parametrize(("heads", "kv_heads"), HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("make", KERNEL_CASES.values(), ids=KERNEL_CASES)
def test_equals_longhand(make, heads, kv_heads, masked):
    kernel, (query, key, value) = make(), rows(heads, kv_heads)
    mask = some_mask() if masked else None
    output = kernel(query=query, key=key, value=value, mask=mask)
    expected, weights = oracle(kernel, query, key, value, mask)
    np.testing.assert_allclose(numpy(output), expected, atol=1e-5)
    got = kernel.attention_weights(query, key, mask)
    assert keras.backend.standardize_dtype(got.dtype) == "float32"
    np.testing.assert_allclose(numpy(got), weights, atol=1e-5)


def test_keys_may_be_more_than_queries_and_values_of_another_size():
    kernel = GaussianKernel()
    query, key, value = rows(length=3, slots=7)
    value = np.concatenate([value, value[..., :2]], axis=-1)
    got = kernel(query, key, value)
    assert got.shape == (2, 3, 4, 8)
    np.testing.assert_allclose(numpy(got), oracle(kernel, query, key, value)[0], atol=1e-5)


class TestTheArticle:
    """Section 2's example: three tokens, E as printed, W_q the identity, W_k all ones, d' = 3."""

    EMBEDDINGS = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], "float32")
    # By hand: W_k makes each key three times the sum of its row, 6, 15 and 24; so the first
    # distance is (1 - 6)² + (2 - 6)² + (3 - 6)² = 50.
    DISTANCES = np.array([[50, 509, 1454], [5, 302, 1085], [14, 149, 770]], "float64")

    def rows(self):
        query, key = self.EMBEDDINGS @ np.eye(3), self.EMBEDDINGS @ np.ones((3, 3))
        return [x.astype("float32")[None, :, None] for x in (query, key, self.EMBEDDINGS)]

    def test_distances_are_those_of_the_formula(self):
        query, key, _ = (x[0, :, 0] for x in self.rows())
        got = ((query[:, None] - key[None]) ** 2).sum(axis=-1)
        np.testing.assert_array_equal(got, self.DISTANCES)

    @pytest.mark.parametrize("alpha", [1.0, 100.0])
    def test_weights_and_sums(self, alpha):
        query, key, value = self.rows()
        plain = np.exp(-self.DISTANCES / (3 * alpha))
        shares = plain / plain.sum(axis=-1, keepdims=True)
        for normalize, expected in ((False, plain), (True, shares)):
            kernel = GaussianKernel(temperature=alpha, normalize=normalize)
            weights = numpy(kernel.attention_weights(query, key))
            assert weights.shape == (1, 1, 3, 3)  # the article prints 4 × 4
            np.testing.assert_allclose(weights[0, 0], expected, rtol=1e-4, atol=1e-30)
            output = numpy(kernel(query, key, value))[0, :, 0]
            np.testing.assert_allclose(output, expected @ self.EMBEDDINGS, atol=1e-5)


@pytest.mark.parametrize("make", KERNEL_CASES.values(), ids=KERNEL_CASES)
class TestMasks:
    def test_a_token_that_sees_nothing_gets_zeros(self, make):
        query, key, value = rows()
        mask = some_mask()
        assert not mask[1, 0, 0].any()
        kernel = make()
        assert (numpy(kernel(query, key, value, mask=mask))[1, 0] == 0.0).all()
        assert (numpy(kernel.attention_weights(query, key, mask))[1, :, 0] == 0.0).all()

    def test_what_is_hidden_moves_nothing(self, make):
        query, key, value = rows()
        mask = some_mask()
        changed = key.copy(), value.copy()
        for x in changed:
            x[1, 0] = 40.0  # padding
            x[:, 4] = -30.0  # the last token, which the others may not see
        kernel = make()
        before, after = (numpy(kernel(query, *x, mask=mask)) for x in ((key, value), changed))
        np.testing.assert_array_equal(before[:, :4], after[:, :4])
        assert np.abs(before[:, 4] - after[:, 4]).max() > 1e-3

    def test_mask_of_one_row_and_of_integers(self, make):
        query, key, value = rows()
        mask = some_mask(batch=1 + 1)[:1]
        kernel = make()
        wide = kernel(query, key, value, mask=np.repeat(mask, 2, axis=0))
        narrow = kernel(query, key, value, mask=mask.astype("int32"))
        np.testing.assert_array_equal(numpy(wide), numpy(narrow))

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16", "mixed_bfloat16"])
    def test_half_precision_is_finite_and_close(self, make, dtype):
        query, key, value = rows()
        mask = some_mask()
        exact = numpy(make()(query, key, value, mask=mask))
        half = make(dtype=dtype)
        got = half(query, key, value, mask=mask)
        assert keras.backend.standardize_dtype(got.dtype) == half.compute_dtype
        assert np.isfinite(numpy(got)).all()
        assert np.abs(numpy(got) - exact).mean() < 0.01


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.floats(-3.0, 3.0), st.booleans())
def test_moving_queries_and_keys_together_changes_nothing(seed, shift, normalize):
    kernel = GaussianKernel(normalize=normalize)
    query, key, value = (np.random.default_rng(seed).normal(size=(1, 4, 2, 6)) for _ in range(3))
    before = numpy(kernel(query, key, value))
    moved = numpy(kernel(query + shift, key + shift, value))
    np.testing.assert_allclose(before, moved, atol=1e-4)


def test_unnormalized_weights_tell_near_from_far():
    query, _, value = rows(heads=2, kv_heads=2)
    kernel = GaussianKernel(normalize=False)
    for scale in (1.0, 30.0):  # the larger, the more rounding could lift a weight above one
        weights = numpy(kernel.attention_weights(query * scale, query * scale))
        assert weights.max() <= 1.0
        np.testing.assert_allclose(weights.diagonal(0, 2, 3), 1.0, atol=1e-3)
    assert (numpy(kernel(query, query + 100.0, value)) == 0.0).all()


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("normalize", [True, False])
def test_bfloat16_keeps_the_norms(normalize, jit_compile):
    """Far from the origin one rounded norm alone gives an error of 0.016 and more."""
    generator = np.random.default_rng(0)
    key = generator.normal(size=(1, 96, 2, 64)) + 2.7
    query = key + generator.normal(size=key.shape) * 0.5
    query, key = (numpy(ops.cast(ops.cast(x, "bfloat16"), "float32")) for x in (query, key))
    kernel: Any = GaussianKernel(normalize=normalize, dtype="bfloat16")
    inputs = [keras.Input(query.shape[1:], dtype="bfloat16") for _ in range(3)]
    model = keras.Model(inputs, kernel(*inputs))
    model.compile(jit_compile=jit_compile)
    got = numpy(model.predict([query, key, key - 2.7], verbose=QUIET))
    expected = oracle(GaussianKernel(normalize=normalize), query, key, key - 2.7)[0]
    assert np.abs(got - expected).mean() / np.abs(expected).mean() < 0.008


class TestLearnedTemperature:
    def model(self, kernel, rate=None):
        query, key, value = data = rows()
        inputs = [keras.Input(x.shape[1:]) for x in data]
        model = keras.Model(inputs, kernel(*inputs))
        if rate:
            model.compile(loss="mean_squared_error", optimizer=keras.optimizers.SGD(rate))
        return model, [query, key, value]

    @pytest.mark.parametrize("normalize", [True, False])
    def test_gradient_equals_a_difference_quotient(self, normalize):
        kernel: Any = GaussianKernel(temperature=0.8, learned_temperature=True, normalize=normalize)
        model, data = self.model(kernel, rate=1.0)
        target = np.random.default_rng(9).normal(size=(2, 5, 4, 6))

        def loss(log_temperature):
            fixed = GaussianKernel(temperature=np.exp(log_temperature), normalize=normalize)
            return np.mean((oracle(fixed, *data)[0] - target) ** 2)

        at, step = np.log(0.8), 1e-4
        expected = (loss(at + step) - loss(at - step)) / (2 * step)
        assert abs(expected) > 1e-3
        assert [v.path for v in model.trainable_variables] == [kernel.log_temperature.path]
        before = float(numpy(kernel.log_temperature))
        model.train_on_batch(data, target)
        got = before - float(numpy(kernel.log_temperature))
        assert got == pytest.approx(expected, rel=2e-3)

    def test_stays_positive(self):
        kernel: Any = GaussianKernel(learned_temperature=True)
        model, data = self.model(kernel, rate=1e3)
        model.train_on_batch(data, np.ones((2, 5, 4, 6)))
        assert float(numpy(kernel.log_temperature)) != 0.0
        assert float(numpy(kernel.current_temperature())) > 0.0

    def test_is_saved_as_learned(self, tmp_path):
        kernel: Any = GaussianKernel(temperature=0.8, learned_temperature=True)
        model, data = self.model(kernel)
        kernel.log_temperature.assign(-1.5)
        model.save(tmp_path / "model.keras")
        again = load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(numpy(again(data)), numpy(model(data)))
        assert abs(numpy(model(data)) - numpy(GaussianKernel(temperature=0.8)(*data))).max() > 1e-3

    def test_a_fixed_temperature_is_no_weight(self):
        kernel = GaussianKernel(temperature=0.8)
        kernel(*rows())
        assert kernel.weights == []
        assert kernel.current_temperature() == 0.8


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="reads a TensorFlow graph")
@pytest.mark.parametrize("make", KERNEL_CASES.values(), ids=KERNEL_CASES)
def test_no_step_is_larger_than_the_scores(make):
    """Differences of all pairs would take D times as much."""
    import tensorflow as tf

    kernel: Any = make()
    shapes = [x.shape for x in rows(length=32, size=16)]
    traced = tf.function(lambda q, k, v: kernel(q, k, v), autograph=False)
    graph = traced.get_concrete_function(*(tf.TensorSpec(shape) for shape in shapes)).graph
    sizes = [output.shape.num_elements() for op in graph.get_operations() for output in op.outputs]
    assert None not in sizes and max(sizes) == 2 * 4 * 32 * 32


class TestChoosing:
    @pytest.mark.parametrize("name", KERNELS)
    def test_by_name_and_back(self, name):
        kernel = get_kernel(name)
        assert type(kernel) is KERNELS[name]
        assert get_kernel(kernel) is kernel
        assert kernel_config(get_kernel(kernel_config(kernel))) == kernel_config(kernel)

    def test_settings_reach_the_kernel(self):
        settings = {"temperature": 0.5, "learned_temperature": True, "normalize": False}
        kernel = get_kernel({"name": "gaussian", **settings}, dtype="mixed_bfloat16")
        assert kernel.settings() == settings and kernel.compute_dtype == "bfloat16"

    @pytest.mark.parametrize(
        ("kernel", "message"),
        [
            ("cosine", r"'cosine' is not known; expected one of \['dot_product', 'gaussian'\]"),
            ({"temperature": 2.0}, "None is not known"),
            ({"name": "gaussian", "alpha": 2.0}, r"no setting alpha; it takes \['temperature'"),
            ({"name": "dot_product", "temperature": 2.0}, "no setting temperature"),
            ({"name": "gaussian", "temperature": 0.0}, "positive number; received 0.0"),
        ],
        ids=str,
    )
    def test_unknown_ones_are_refused(self, kernel, message):
        with pytest.raises(InputError, match=message):
            get_kernel(kernel)

    @pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf"), "1", True, None])
    def test_temperatures_that_are_none(self, temperature):
        with pytest.raises(InputError, match="The temperature must be a positive number"):
            GaussianKernel(temperature=temperature)

    def test_one_of_one_s_own(self):
        class Near(AttentionKernel):
            def scores(self, query, key):
                return DotProduct().scores(query, key) * 0.0

        query, key, value = rows()
        got = numpy(get_kernel(Near())(query, key, value))
        means = np.repeat(value.mean(axis=1, keepdims=True), 2, axis=2)
        np.testing.assert_allclose(got, np.broadcast_to(means, got.shape), atol=1e-6)
        with pytest.raises(InputError, match="Near is no attention kernel of KERNELS"):
            kernel_config(Near())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query": np.zeros((2, 5, 6))}, r"must be \(B, T, heads, D\); received query \(2, 5, 6\)"),
        ({"query": np.zeros((2, 5, 3, 6))}, "heads of the key must divide"),
        ({"key": np.zeros((2, 5, 2, 7))}, "do not fit together"),
        ({"value": np.zeros((2, 4, 2, 6))}, "do not fit together"),
        ({"mask": np.ones((2, 5, 5), "bool")}, r"\(B, 1, T, S\).*received \(2, 5, 5\)"),
        ({"mask": np.ones((2, 4, 5, 5), "bool")}, r"received \(2, 4, 5, 5\)"),
        ({"mask": np.ones((2, 1, 5, 4), "bool")}, r"here \(2, 1, 5, 5\).*\(2, 1, 5, 4\)"),
    ],
    ids=lambda x: ", ".join(x) if isinstance(x, dict) else "",
)
def test_shapes_that_do_not_fit_are_refused(changes, message):
    inputs = dict(zip(("query", "key", "value"), rows(), strict=True))
    with pytest.raises(InputError, match=message):
        GaussianKernel()(**{**inputs, **changes})
