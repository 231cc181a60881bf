import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from benchmarks.replica_equality import CASES, OPTIMIZERS, differences
from llama_keras.errors import InputError
from llama_keras.tasks import Embedder
from llama_keras.training import ExactTrainer


class Model(ExactTrainer, keras.Model):
    """What people make of the mixin."""


# Each optimizer with all that it is combined with, and one optimizer with each by itself.
TOGETHER = [f"{name.lower()}/all" for name in OPTIMIZERS]
ALONE = [case for case in CASES if "adamw/" in case and "mixed" not in case]
MIXED = [case for case in CASES if "adamw/mixed" in case]
# Float error of a step of about 1e-3; in 16 bits signs of Adam's steps flip.
TOLERANCES = {"mixed_bfloat16": 2e-2, "mixed_float16": 1e-3}


def work(repository, folder, replicas, cases):
    file = folder / f"{replicas}.npz"
    words = [sys.executable, "-m", "tests.training.replica_worker", str(replicas), str(file)]
    done = subprocess.run(
        [*words, *cases], cwd=repository, env=os.environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(np.load(file))


QUICK = ("text_classifier", "summed_loss", "masked_losses")
OTHERS = ("token_classifier", "embedder", "pretraining", "packed")


@pytest.fixture(scope="module")
def one(repository, tmp_path_factory):
    return work(repository, tmp_path_factory.mktemp("one"), 1, QUICK)


@pytest.fixture(scope="module")
def two(repository, tmp_path_factory):
    return work(repository, tmp_path_factory.mktemp("two"), 2, QUICK)


@pytest.fixture(scope="module")
def others(repository, tmp_path_factory):
    folder = tmp_path_factory.mktemp("others")
    return [work(repository, folder, replicas, OTHERS) for replicas in (1, 2)]


def assert_same(one, two, case):
    names = [name for name in one if name.startswith(f"{case}/")]
    assert len(names) > 2
    for name in names:
        np.testing.assert_allclose(two[name], one[name], atol=5e-6, rtol=1e-5, err_msg=name)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", QUICK)
def test_two_replicas_learn_what_one_learns(one, two, case):
    assert_same(one, two, case)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", OTHERS)
def test_two_replicas_learn_what_one_learns_in_each_task(others, case):
    one, two = others
    assert_same(one, two, case)


def test_overflow_on_one_replica_skips_the_step_on_all(one, two):
    for found in (one, two):
        is_same, scale = found["overflow"]
        assert is_same and scale == 512.0


def test_replicas_drop_values_of_their_own(two):
    masks = two["masks"]  # (draws, replicas, values)
    assert set(np.unique(masks)) == {0.0, 2.0}
    draws = masks.reshape(4, -1)
    assert all((a != b).any() for i, a in enumerate(draws) for b in draws[:i])
    np.testing.assert_array_equal(masks, two["masks again"])


def test_settings_that_fail_inside_keras_are_refused(two):
    accumulation, overwrite = two["refusals"]
    assert "model.compile" in accumulation and "MirroredStrategy" in accumulation
    assert "ema_overwrite_frequency=2" in overwrite


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_optimizer_is_the_same_on_several_replicas():
    cases = [*TOGETHER, *ALONE, *MIXED]
    for column, found in differences(cases, replicas=[2, 4]).items():
        for case, difference in found.items():
            limit = TOLERANCES.get(case.split("/")[1], 5e-6)
            assert isinstance(difference, float) and difference < limit, (column, case, difference)


def make_model(**arguments):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    model = Model(inputs, keras.layers.Dense(2)(inputs))
    model.compile(keras.optimizers.SGD(0.1), **{"loss": "mse", **arguments})
    return model


NUMBERS = np.random.default_rng(1)
X = NUMBERS.normal(size=(10, 4)).astype("float32")
Y = NUMBERS.normal(size=(10, 2)).astype("float32")
WEIGHTS = NUMBERS.uniform(size=10).astype("float32")


@pytest.mark.parametrize("parts", [2, 3, 7])
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
def test_parts_of_a_batch_are_worth_the_whole(parts, reduction):
    fit = {"sample_weight": WEIGHTS, "batch_size": 10, "epochs": 2, "verbose": 0, "shuffle": False}
    whole, split = (
        make_model(
            loss=keras.losses.MeanSquaredError(reduction=reduction),
            metrics=["mae"],
            gradient_accumulation_steps=count,
        )
        for count in (1, parts)
    )
    expected = whole.fit(X, Y, **fit).history
    found = split.fit(X, Y, **fit).history
    for a, b in zip(whole.get_weights(), split.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_allclose(found["mae"], expected["mae"], rtol=1e-5)
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-5)


def test_one_replica_learns_as_keras_does():
    ours = make_model()
    inputs = keras.Input((4,))
    theirs = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    theirs.set_weights(ours.get_weights())
    theirs.compile(keras.optimizers.SGD(0.1), loss="mse")
    histories = [
        model.fit(X, Y, sample_weight=WEIGHTS, batch_size=4, epochs=3, verbose=0, shuffle=False)
        for model in (ours, theirs)
    ]
    assert histories[0].history == histories[1].history
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_labels_that_are_ignored_count_in_no_part():
    labels = np.array([0, 1, 1, 1, 0, 1, 1, 0, 1, 1])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=1)
    models = [make_model(loss=loss, gradient_accumulation_steps=parts) for parts in (1, 3)]
    for model in models:
        model.fit(X, labels, batch_size=10, epochs=3, verbose=0, shuffle=False)
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_masks_of_layers_do_not_go_with_parts():
    inputs = keras.Input((3,), dtype="int32")
    hidden = keras.layers.Embedding(5, 2, mask_zero=True)(inputs)
    model = Model(inputs, keras.layers.Dense(5)(hidden))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss=loss, gradient_accumulation_steps=2)
    rows = np.ones((4, 3), "int32")
    with pytest.raises(InputError, match="give sample_weight instead"):
        model.fit(rows, rows, verbose=0)


def test_a_batch_by_itself_is_learned_from_once():
    one, several = make_model(), make_model()
    one.train_on_batch(X, Y)
    several.fit(X, Y, batch_size=10, verbose=0, shuffle=False)
    for a, b in zip(one.get_weights(), several.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("parts", [0, -1, 1.5])
def test_parts_must_be_a_positive_number(parts):
    with pytest.raises(InputError, match="gradient_accumulation_steps must be a positive integer"):
        make_model(gradient_accumulation_steps=parts)


def test_losses_of_different_kinds_are_refused():
    losses = [keras.losses.MeanSquaredError(), keras.losses.MeanSquaredError(reduction="sum")]
    with pytest.raises(InputError, match="must have one reduction"):
        make_model(loss=losses)


def test_texts_that_are_compared_are_not_taken_in_parts():
    model = Embedder.from_preset("llama-tiny")
    with pytest.raises(InputError, match="compared with each other"):
        model.compile(gradient_accumulation_steps=2)
