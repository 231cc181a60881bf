import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from llama_keras.training.fine_tuning import DepthRates
from llama_keras.training.optimizers import AdamW, DepthwiseAdamW, default_adamw, depth_of

LAYERS = 2
CLOSE = 2e-6
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
    # As in `fit`, where hyperparameters become constants of a graph.
    apply = tf.function(lambda gradients: optimizer.apply(gradients, weights))
    generator = np.random.default_rng(0)
    for _ in range(count):
        apply([ops.convert_to_tensor(generator.normal(size=(2, 3)).astype("float32"))] * 4)
    return [ops.convert_to_numpy(weight) for weight in weights]


def test_depths():
    found = [depth_of(f"backbone/{path}/kernel", num_layers=LAYERS) for path in PATHS]
    assert found == [0, 1, 2, 3]
    assert depth_of("backbone/position_embedding/embeddings", num_layers=LAYERS) == 0
    assert depth_of("token_embedding/reverse_embeddings", num_layers=LAYERS) == 3
    assert depth_of("backbone/transformer_layer_11/attention/x", num_layers=12) == 12
    assert depth_of("backbone/layer_norm/scale", num_layers=12) == 13


def test_equal_shares_are_adamw():
    ours = steps(DepthwiseAdamW(0.1, shares=[1.0] * 4, decay=0.05), variables(), 3)
    keras_own = steps(keras.optimizers.AdamW(0.1, weight_decay=0.05), variables(), 3)
    for one, other in zip(ours, keras_own, strict=True):
        np.testing.assert_allclose(one, other, rtol=CLOSE)


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


@pytest.mark.parametrize("rates", [None, DepthRates([1.0, 1.0], [0, 0])])
def test_matrices_alone_decay(rates):
    names = ("scale", "bias", "log_temperature", "kernel")
    weights = [keras.Variable(np.ones(2, "float32"), name=name) for name in names]
    optimizer = default_adamw(0.1, None, depth_rates=rates)
    optimizer.build(weights)
    optimizer.apply([ops.zeros(2)] * 4, weights)
    for weight in weights[:3]:
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), 1.0)
    assert ops.convert_to_numpy(weights[3]) == pytest.approx(0.999)


SETTINGS = {
    "default": {},
    "decay": {"weight_decay": 0.05},
    "global norm": {"global_clipnorm": 0.5},
    "large global norm": {"global_clipnorm": 1e6},
    "negative global norm": {"global_clipnorm": -1.0},
    "norm": {"clipnorm": 0.5},
    "value": {"clipvalue": 0.1, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3},
    "no memory of the mean": {"beta_1": 0},
    "numbers of NumPy": {"beta_2": np.float64(0.99), "epsilon": np.float64(1e-6)},
    "amsgrad": {"amsgrad": True},
    "ema": {"use_ema": True, "ema_momentum": 0.9},
    "schedule": {"learning_rate": keras.optimizers.schedules.CosineDecay(0.1, 4)},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_adamw_is_that_of_keras(settings):
    made = []
    for kind in (AdamW, keras.optimizers.AdamW):
        optimizer = kind(**{"learning_rate": 0.1, **settings})
        optimizer.exclude_from_weight_decay(var_names=["head"])
        made.append((optimizer, steps(optimizer, variables(), 5)))
    (ours, one), (theirs, other) = made
    np.testing.assert_allclose(one, other, rtol=CLOSE)
    for a, b in zip(ours.variables, theirs.variables, strict=True):
        assert a.path.split("/")[-1] == b.path.split("/")[-1]
        np.testing.assert_allclose(ops.convert_to_numpy(a), ops.convert_to_numpy(b), rtol=CLOSE)


def test_adamw_takes_slices_of_an_embedding():
    slices = tf.IndexedSlices(tf.ones((1, 3)), tf.constant([1]), tf.constant([2, 3]))
    found = []
    for kind in (AdamW, keras.optimizers.AdamW):
        weight = keras.Variable(np.ones((2, 3), "float32"))
        optimizer = kind(0.1, global_clipnorm=0.5)
        optimizer.build([weight])
        optimizer.apply([slices], [weight])
        found.append(ops.convert_to_numpy(weight))
    np.testing.assert_allclose(*found, rtol=CLOSE)


@pytest.mark.parametrize("kind", [AdamW, keras.optimizers.AdamW])
@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_gradients_that_are_no_numbers_are_seen(kind, bad):
    weights = variables()
    optimizer = kind(0.1, global_clipnorm=1.0)
    optimizer.build(weights)
    gradients = [np.ones((2, 3), "float32") for _ in weights]
    gradients[0][0, 0] = bad
    optimizer.apply([ops.convert_to_tensor(g) for g in gradients], weights)
    assert all(np.isnan(ops.convert_to_numpy(weight)).all() for weight in weights)


def test_bfloat16_weights_learn():
    weight = keras.Variable(np.ones((2, 3)), dtype="bfloat16")
    optimizer = AdamW(0.01, weight_decay=0.0)
    optimizer.build([weight])
    for _ in range(20):
        optimizer.apply([ops.ones((2, 3), "bfloat16")], [weight])
    np.testing.assert_allclose(ops.convert_to_numpy(ops.cast(weight, "float32")), 0.8, atol=0.05)


def test_float64_weights_keep_their_precision():
    weight = keras.Variable(np.ones((2, 3)), dtype="float64")
    optimizer = AdamW(0.125, weight_decay=0.0)
    optimizer.build([weight])
    optimizer.apply([ops.full((2, 3), 300.0, "float64")], [weight])
    rate = 0.125 * np.sqrt(1 - 0.999) / (1 - 0.9)
    expected = 1 - rate * 30 / (np.sqrt(90) + optimizer.epsilon)
    np.testing.assert_allclose(ops.convert_to_numpy(weight), expected, rtol=1e-13)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_adamw_in_a_compiled_step(jit_compile):
    found = []
    for kind in (AdamW, keras.optimizers.AdamW):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((3,))
        model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
        model.compile(kind(0.1, global_clipnorm=0.5), loss="mse", jit_compile=jit_compile)
        rows = np.arange(12, dtype="float32").reshape(4, 3)
        model.fit(rows, rows[:, :1], epochs=5, verbose=0)
        found.append(model.get_weights()[0])
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_adamw_comes_back_from_a_file(tmp_path):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    model.compile(AdamW(0.1, weight_decay=0.5, global_clipnorm=2.0), loss="mse")
    rows = np.arange(12, dtype="float32").reshape(4, 3)
    model.fit(rows, rows[:, :1], verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.optimizer) is AdamW
    for one in (model, again):
        one.fit(rows, rows[:, :1], verbose=0)
    np.testing.assert_array_equal(again.get_weights()[0], model.get_weights()[0])


TWO_DEVICES = """
import keras
import numpy as np
import tensorflow as tf

from llama_keras.training import AdamW

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
found = []
for kind in (AdamW, keras.optimizers.AdamW):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    with tf.device("CPU:1"):
        layer = keras.layers.Dense(5)
        layer.build((None, 3))
    model = keras.Model(inputs, keras.layers.Dense(1)(layer(inputs)))
    model.compile(kind(0.1, global_clipnorm=0.5), loss="mse", jit_compile=False)
    assert "CPU:1" in layer.kernel.value.device
    rows = np.arange(12, dtype="float32").reshape(4, 3)
    model.fit(rows, rows[:, :1], epochs=3, verbose=0)
    found.append(model.get_weights())
for one, other in zip(*found, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-5)
"""


def run_alone(script, folder, **environment):
    """Runs a script in a process of its own; asserts that it succeeds."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_weights_on_several_devices(repository):
    run_alone(TWO_DEVICES, repository)


UNDER_JAX = """
from llama_keras.tasks import TextClassifier

for strategy in ("full", "layerwise_lr_decay"):
    model = TextClassifier.from_preset("llama-tiny", labels=["a", "b"], strategy=strategy)
    before = model.get_weights()
    model.fit(["yes", "no", "well"], ["a", "b", "a"], epochs=2, verbose=0)
    assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_the_default_optimizers_work_under_jax(repository):
    run_alone(UNDER_JAX, repository, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
