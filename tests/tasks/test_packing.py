"""`fit(packing=True)`: several texts in a row teach what they teach alone."""

import keras
import numpy as np
import pytest

from llama_keras.errors import InputError
from llama_keras.tasks import CausalLM, Denoiser, Pretraining, TextClassifier
from llama_keras.training import Checkpoints
from llama_keras.training.throughput import Throughput

PROMPTS = [f"{'la ' * (i % 5)}sky {i} is" for i in range(9)]
ANSWERS = [f" blue{'r' * (i % 4)}" for i in range(9)]
ONE_LAYER = {"backbone_arguments": {"num_layers": 1}}
WIDTH = 48
SMALL = {"batch_size": 16, "epochs": 3, "verbose": 0}  # each epoch is one batch


def causal(strategy="full", **arguments):
    keras.utils.set_random_seed(0)
    return CausalLM.from_preset(
        "llama-tiny", strategy=strategy, max_sequence_length=WIDTH, **ONE_LAYER, **arguments
    )


def pretraining(objective="masked", **arguments):
    keras.utils.set_random_seed(0)
    return Pretraining.from_preset(
        "llama-tiny", objective=objective, max_sequence_length=WIDTH, **ONE_LAYER, **arguments
    )


def assert_close(found, expected):
    for a, b in zip(found.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5)
    for name, values in expected.history.history.items():
        np.testing.assert_allclose(found.history.history[name], values, rtol=1e-5)


def learned(model, *data, packing, parts: int = 1, **arguments):
    """Plain gradient descent, whose steps are the gradients."""
    if hasattr(model, "strategy"):
        model.strategy.prepare(model)
    before = [np.array(w) for w in model.get_weights()]
    model.compile(keras.optimizers.SGD(1.0), gradient_accumulation_steps=parts)
    model.fit(*data, packing=packing, **{**SMALL, **arguments})
    moved = [np.abs(a - b).max() for a, b in zip(model.get_weights(), before, strict=True)]
    assert max(moved) > 1e-2
    return model


@pytest.mark.parametrize("strategy", ["full", "lora"])
def test_packed_responses_teach_what_they_teach_alone(strategy):
    held_out = (PROMPTS[:3], ANSWERS[:3])
    alone, packed = (
        learned(causal(strategy), PROMPTS, ANSWERS, packing=packing, validation_data=held_out)
        for packing in (False, True)
    )
    assert_close(packed, alone)
    assert "val_loss" in packed.history.history


@pytest.mark.parametrize("objective", ["causal", "masked", "masked_next_token"])
def test_packed_texts_teach_what_they_teach_alone(objective):
    alone, packed = (
        learned(pretraining(objective), PROMPTS, packing=packing) for packing in (False, True)
    )
    assert_close(packed, alone)


def test_rows_of_a_packed_batch_may_be_taken_in_parts():
    whole, halves = (
        learned(causal(), PROMPTS, ANSWERS, packing=True, parts=parts, batch_size=4)
        for parts in (1, 2)
    )
    assert_close(halves, whole)


class Killed(Exception):
    pass


class Kill(keras.callbacks.Callback):
    """Ends the process, so to say, after a number of batches."""

    batches = 4

    def on_train_batch_end(self, batch, logs=None):
        self.batches -= 1
        if not self.batches:
            raise Killed


@pytest.mark.slow
@pytest.mark.parametrize("make", [causal, pretraining])
def test_a_killed_run_goes_on_to_the_same_weights(make, tmp_path):
    data = (PROMPTS, ANSWERS) if make is causal else (PROMPTS,)

    def fit(folder, *callbacks, **arguments):
        model = make()
        kept = Checkpoints(folder=tmp_path / folder, every=1, minutes=None)
        arguments = {"packing": True, "batch_size": 2, "epochs": 3, "verbose": 0, **arguments}
        model.fit(*data, checkpoints=kept, callbacks=list(callbacks), **arguments)
        return model

    whole = fit("whole")
    with pytest.raises(Killed):
        fit("parts", Kill())
    with pytest.raises(InputError, match="packing was 48, now null"):
        fit("parts", packing=False)
    found = fit("parts")
    for a, b in zip(found.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert found.history.history == whole.history.history


def test_throughput_knows_what_packed_rows_hold():
    model, speed = pretraining("causal"), Throughput()
    model.fit(PROMPTS, packing=True, batch_size=2, epochs=2, verbose=0, callbacks=[speed])
    sizes = [model.batch_sizes(epoch=epoch) for epoch in range(2)]
    lengths = model.token_rows(PROMPTS).lengths
    assert all(size.tokens.sum() == lengths.sum() for size in sizes)
    assert all((size.places == 2 * WIDTH).all() for size in sizes)
    assert speed.places == 2 * WIDTH * (2 * len(sizes[0].places) - 1)


def test_what_cannot_be_packed_is_refused():
    texts = {"packing": True, "verbose": 0}
    classifier = TextClassifier.from_preset("llama-tiny", labels=["a", "b"], **ONE_LAYER)
    with pytest.raises(InputError, match="TextClassifier reads one answer from each row"):
        classifier.fit(["x", "y"], ["a", "b"], **texts)
    with pytest.raises(InputError, match="'prefix' writes each text twice"):
        Denoiser.from_preset("llama-tiny", **ONE_LAYER).fit(PROMPTS, **texts)
    with pytest.raises(InputError, match="'views' compares whole rows"):
        shaky = {"backbone_arguments": {"num_layers": 1, "dropout": 0.1}}
        Pretraining.from_preset("llama-tiny", objective="contrastive", **shaky).fit(
            PROMPTS, **texts
        )
    with pytest.raises(InputError, match="packing=True needs raw examples"):
        causal().fit({"token_ids": np.ones((2, 3))}, **texts)
    with pytest.raises(InputError, match="packing=True needs texts"):
        pretraining().fit({"token_ids": np.ones((2, 3))}, **texts)
