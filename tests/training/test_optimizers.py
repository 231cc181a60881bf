import keras
import numpy as np
import pytest
from keras import ops

from llama_keras.training.optimizers import DepthwiseAdamW, depth_of

LAYERS = 2
PATHS = ["token_embedding", "transformer_layer_0/dense", "transformer_layer_1/dense", "head"]


def variables():
    made = []
    for depth, path in enumerate(PATHS):
        scope, _, name = path.rpartition("/")
        with keras.name_scope(scope) if scope else keras.name_scope("top"):
            made.append(keras.Variable(np.full((2, 3), depth + 1.0, "float32"), name=name))
    return made


def steps(optimizer, weights, count):
    optimizer.build(weights)
    generator = np.random.default_rng(0)
    for _ in range(count):
        gradients = [ops.convert_to_tensor(generator.normal(size=(2, 3)).astype("float32"))] * 4
        optimizer.apply(gradients, weights)
    return [ops.convert_to_numpy(weight) for weight in weights]


def test_depths():
    found = [depth_of(f"backbone/{path}/kernel", num_layers=LAYERS) for path in PATHS]
    assert found == [0, 1, 2, 3]
    assert depth_of("backbone/position_embedding/embeddings", num_layers=LAYERS) == 0
    assert depth_of("backbone/transformer_layer_11/attention/x", num_layers=12) == 12
    assert depth_of("backbone/layer_norm/scale", num_layers=12) == 13


def test_equal_shares_are_adamw():
    ours = steps(DepthwiseAdamW(0.1, shares=[1.0] * 4, decay=0.05), variables(), 3)
    keras_own = steps(keras.optimizers.AdamW(0.1, weight_decay=0.05), variables(), 3)
    for one, other in zip(ours, keras_own, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_shares_scale_the_rate_of_their_depth():
    whole = steps(DepthwiseAdamW(0.1, shares=[1.0] * 4), variables(), 1)
    parts = steps(DepthwiseAdamW(0.1, shares=[0.0, 0.25, 0.5, 1.0]), variables(), 1)
    for depth, share in enumerate([0.0, 0.25, 0.5, 1.0]):
        moved = (parts[depth] - (depth + 1.0)) / (whole[depth] - (depth + 1.0))
        np.testing.assert_allclose(moved, share, rtol=1e-4)


def test_weights_learn_from_their_step_on():
    optimizer = DepthwiseAdamW(0.1, shares=[1.0] * 4, starts=[3, 2, 1, 0])
    for count, still in ((1, [True, True, True, False]), (2, [True, True, False, False])):
        fresh = optimizer.from_config(optimizer.get_config())
        values = steps(fresh, variables(), count)
        assert [bool((v == d + 1.0).all()) for d, v in enumerate(values)] == still


def test_norms_and_biases_do_not_decay():
    weights = [keras.Variable(np.ones(2, "float32"), name=name) for name in ("scale", "kernel")]
    optimizer = DepthwiseAdamW(0.1, shares=[1.0, 1.0], decay=0.5)
    optimizer.build(weights)
    optimizer.apply([ops.zeros(2)] * 2, weights)
    assert ops.convert_to_numpy(weights[0]) == pytest.approx(1.0)
    assert ops.convert_to_numpy(weights[1]) == pytest.approx(0.95)
