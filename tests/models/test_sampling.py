import numpy as np
import pytest
from keras import ops

from llama_keras.errors import InputError
from llama_keras.models.sampling import (
    SamplingSettings,
    choose,
    exponential_noise,
    keep_likely,
)


def tensors(rows, *, temperature=1.0, top_k=0, top_p=1.0, seed=0):
    values = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    settings = [
        SamplingSettings(
            **{name: np.broadcast_to(value, rows)[row].item() for name, value in values.items()}
        )
        for row in range(rows)
    ]
    stacked = SamplingSettings.stack(settings, rows=rows)
    return {name: ops.convert_to_tensor(stacked[name]) for name in values}


def draw(logits, step=0, **settings):
    logits = ops.convert_to_tensor(np.asarray(logits, "float32"))
    tokens, log_probabilities = choose(
        logits, step=ops.convert_to_tensor(np.int32(step)), **tensors(logits.shape[0], **settings)
    )
    return ops.convert_to_numpy(tokens), ops.convert_to_numpy(log_probabilities)


def softmax(logits):
    shifted = np.exp(logits - np.max(logits))
    return shifted / shifted.sum()


def reference(logits, *, temperature, top_k, top_p):
    """Probabilities after the filters, the long way: by sorting, in float64."""
    scaled = np.asarray(logits, "float64") / temperature
    order = np.argsort(-scaled)
    if top_k:
        scaled[order[top_k:]] = -np.inf
    probabilities = softmax(scaled)
    if top_p < 1:
        before = np.cumsum(probabilities[order]) - probabilities[order]
        probabilities[order[before >= top_p]] = 0
    return probabilities / probabilities.sum()


def test_temperature_zero_takes_the_best_token_and_gives_the_models_log_probability():
    logits = np.array([[0.0, 3.0, 1.0], [5.0, 2.0, 4.9]])
    tokens, values = draw(logits, temperature=0.0)
    assert tokens.tolist() == [1, 0]
    expected = [np.log(softmax(row))[token] for row, token in zip(logits, [1, 0], strict=True)]
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_log_probabilities_are_those_before_temperature_and_filters():
    logits = np.array([[0.0, 3.0, 1.0]])
    tokens, values = draw(logits, temperature=0.3, top_k=2, seed=5)
    np.testing.assert_allclose(values, np.log(softmax(logits[0]))[tokens], atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1.0, "top_k": 0, "top_p": 1.0},
        {"temperature": 0.5, "top_k": 0, "top_p": 1.0},
        {"temperature": 1.0, "top_k": 3, "top_p": 1.0},
        {"temperature": 1.0, "top_k": 0, "top_p": 0.7},
        {"temperature": 1.5, "top_k": 5, "top_p": 0.8},
    ],
)
def test_draws_follow_the_exact_distribution(settings):
    """Chi-squared over 20,000 draws; fails for any wrong filter or biased noise."""
    logits = np.array([1.0, 0.2, -0.5, 2.0, -1.0, 0.9, -3.0, 0.0], "float32")
    draws = 20_000
    tokens, _ = draw(np.tile(logits, (draws, 1)), seed=np.arange(draws), **settings)
    counts = np.bincount(tokens, minlength=len(logits))
    expected = reference(logits, **settings) * draws
    assert counts[expected == 0].sum() == 0
    live = expected > 0
    statistic = np.sum((counts[live] - expected[live]) ** 2 / expected[live])
    assert statistic < 30  # 7 degrees of freedom: passed by chance 1 time in 10,000


def test_the_whole_vocabulary_can_be_drawn_when_filters_are_off():
    """A sampler that looks at the 64 best only would never leave them."""
    tokens, _ = draw(np.zeros((2000, 1000)), seed=np.arange(2000))
    assert len(np.unique(tokens)) > 800  # 865 expected


@pytest.mark.parametrize("size", [50, 5000])
@pytest.mark.parametrize(("top_k", "top_p"), [(1, 1.0), (7, 1.0), (0, 0.9), (40, 0.5), (0, 1e-9)])
def test_filters_keep_what_a_sort_would_keep(size, top_k, top_p):
    logits = np.random.default_rng(size).normal(scale=3, size=(4, size)).astype("float32")
    logits -= logits.max(axis=1, keepdims=True)
    settings = tensors(4, top_k=top_k, top_p=top_p)
    kept = keep_likely(
        ops.convert_to_tensor(logits), top_k=settings["top_k"], top_p=settings["top_p"]
    )
    for row, kept_row in zip(logits, ops.convert_to_numpy(kept) > -1e29, strict=True):
        expected = reference(row, temperature=1.0, top_k=top_k, top_p=top_p) > 0
        # Cumulated float32 and float64 sums may disagree on the one token at the border.
        assert np.sum(kept_row != expected) <= (top_p < 1)
        assert kept_row[np.argmax(row)]


def test_settings_are_per_row():
    logits = np.tile(np.array([0.0, 1.0, 2.0, 3.0]), (64, 1))
    temperature = np.where(np.arange(64) % 2, 5.0, 0.0)
    tokens, _ = draw(logits, temperature=temperature, seed=np.arange(64))
    assert set(tokens[::2]) == {3}
    assert len(set(tokens[1::2])) == 4


def test_a_row_does_not_depend_on_the_others_and_repeats():
    logits = np.random.default_rng(0).normal(size=(5, 300))
    seeds = np.array([3, 1, 4, 1, 5])
    together, _ = draw(logits, step=7, seed=seeds)
    alone = [draw(logits[row : row + 1], step=7, seed=seeds[row])[0][0] for row in range(5)]
    assert together.tolist() == alone


def test_noise_is_exponential_and_differs_by_seed_step_and_token():
    seeds = ops.convert_to_tensor(np.array([0, 1, 2**32 - 1], "uint32"))
    first, second = (
        ops.convert_to_numpy(
            exponential_noise(seeds, ops.convert_to_tensor(np.int32(step)), 40_000)
        )
        for step in (0, 1)
    )
    assert first.min() > 0
    np.testing.assert_allclose(first.mean(axis=1), 1.0, atol=0.02)
    np.testing.assert_allclose(first.var(axis=1), 1.0, atol=0.06)
    np.testing.assert_allclose(np.mean(first > 2.0), np.exp(-2.0), atol=0.004)
    both = np.concatenate([first, second])
    correlations = np.corrcoef(both) - np.eye(6)
    assert np.abs(correlations).max() < 0.025
    neighbours = np.corrcoef(first[:, 1:].ravel(), first[:, :-1].ravel())[0, 1]
    assert abs(neighbours) < 0.015


def test_no_seed_step_and_token_is_special():
    """A hash that maps 0 to 0 would let token 0 win at seed 0, step 0."""
    seeds = ops.convert_to_tensor(np.arange(2000, dtype="uint32"))
    for step in (0, 1):
        noise = exponential_noise(seeds, ops.convert_to_tensor(np.int32(step)), 3)
        noise = ops.convert_to_numpy(noise)
        assert noise[0].min() > 1e-3
        np.testing.assert_allclose(noise.mean(axis=0), 1.0, atol=0.1)  # each token over seeds
        assert np.abs(np.corrcoef(noise[1:, 0], noise[:-1, 0])[0, 1]) < 0.08


def test_noise_is_the_same_on_every_backend():
    seeds = ops.convert_to_tensor(np.array([5], "uint32"))
    noise = exponential_noise(seeds, ops.convert_to_tensor(np.int32(3)), 4)
    np.testing.assert_allclose(
        ops.convert_to_numpy(noise)[0], [1.2683429, 0.47720695, 0.41141197, 1.7735698], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 0),
        ("max_new_tokens", 2.5),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", "hot"),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", float("nan")),
        ("seed", "x"),
        ("seed", True),
    ],
)
def test_wrong_settings_are_refused_by_name(name, value):
    with pytest.raises(InputError, match=f"{name} must be .*; received"):
        SamplingSettings(**{name: value})


def test_any_integer_is_a_seed():
    stacked = SamplingSettings.stack(
        [SamplingSettings(seed=-1), SamplingSettings(seed=2**40)], rows=3
    )
    assert stacked["seed"].tolist() == [2**32 - 1, 0, 0]
    assert stacked["max_new_tokens"].tolist() == [64, 64, 0]
