import json
import logging

import keras
import numpy as np
import pytest

from llama_keras.tasks import Embedder, Pretraining
from llama_keras.training.metrics_log import MetricsLog
from tests.marks import slow
from tests.training.killed_fit import (
    EPOCHS,
    SMALL,
    STEPS,
    TEXTS,
    Kill,
    KillAtEpochEnd,
    Killed,
    assert_same,
    classifier,
    early,
    fit,
    kept,
    plain_rate,
)


@pytest.fixture(scope="module")
def expected():
    return fit(classifier())


@pytest.mark.parametrize("step", [9, *slow(1, 2, 3, 5, 6, 15)])
def test_killed_at_any_step_it_learns_the_same(tmp_path, expected, step):
    with pytest.raises(Killed):
        fit(classifier(), kept(tmp_path), Kill(step))
    assert_same(fit(classifier(), kept(tmp_path)), expected)


@pytest.mark.parametrize("epoch", [0, 2])
def test_killed_at_the_end_of_an_epoch(tmp_path, expected, epoch):
    with pytest.raises(Killed):
        fit(classifier(), kept(tmp_path, every=5), KillAtEpochEnd(epoch))
    assert_same(fit(classifier(), kept(tmp_path, every=5)), expected)


@pytest.mark.slow
def test_killed_again_and_again(tmp_path, expected):
    for step in (4, 5, 8, 11, 13):
        with pytest.raises(Killed):
            fit(classifier(), kept(tmp_path, every=1), Kill(step))
    assert_same(fit(classifier(), kept(tmp_path, every=1)), expected)


def test_a_finished_run_stays_finished(tmp_path, expected):
    fit(classifier(), kept(tmp_path))
    # A batch would raise.
    assert_same(fit(classifier(), kept(tmp_path), Kill(1)), expected)


def of_optimizer(**settings):
    schedule = keras.optimizers.schedules.CosineDecay(0.01, 15, warmup_steps=3, warmup_target=0.02)

    def compiled():
        model = classifier()
        optimizer = keras.optimizers.AdamW(schedule, global_clipnorm=0.5, **settings)
        model.compile(optimizer, gradient_accumulation_steps=2)
        return model

    return compiled


def of_scaled_losses():
    model = classifier(dtype="mixed_float16")
    model.compile(keras.optimizers.Adam(0.01))
    return model


def of_collected_batches():
    model = classifier()
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=3))
    return model


MAKERS = {
    "averages": of_optimizer(use_ema=True, ema_momentum=0.8),
    "averages written": of_optimizer(use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=4),
    "scaled losses": of_scaled_losses,
    "collected batches": of_collected_batches,
    "lora": lambda: classifier("lora"),
    "gradual unfreezing": lambda: classifier("gradual_unfreezing"),
}


@pytest.mark.parametrize("case", ["lora", *slow(*sorted(MAKERS.keys() - {"lora"}))])
@pytest.mark.parametrize("step", [4, *slow(13)])
def test_whatever_the_optimizer_and_the_strategy(tmp_path, case, step):
    make = MAKERS[case]
    with pytest.raises(Killed):
        fit(make(), kept(tmp_path), Kill(step))
    assert_same(fit(make(), kept(tmp_path)), fit(make()))


def plateau():
    return [keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=9.0)]


def halving():
    # Depends on the rate that is there, so it must not be applied twice in an epoch.
    return [keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)]


class Counter(keras.callbacks.Callback):
    """Changes the weights by a state of its own."""

    count = 0.0

    def on_train_batch_begin(self, batch, logs=None):
        self.count += 0.001
        weight = self.model.trainable_variables[0]
        weight.assign(weight * (1 + self.count))

    def get_state(self):
        return {"count": np.float64(self.count), "list": [1, (2.0, None)], "array": np.arange(3)}

    def set_state(self, state):
        assert state["list"] == [1, (2.0, None)] and state["array"].tolist() == [0, 1, 2]
        self.count = float(state["count"])


CALLBACKS = {
    "early stopping": early,
    "plateau": plateau,
    "scheduler": halving,
    "own": lambda: [Counter()],
    "all": lambda: [*early(), *plateau(), *halving(), Counter()],
}


@pytest.mark.parametrize("case", ["all", *slow(*sorted(CALLBACKS.keys() - {"all"}))])
@pytest.mark.parametrize("step", [8, *slow(4)])
def test_callbacks_go_on(tmp_path, case, step):
    make = CALLBACKS[case]
    whole = fit(plain_rate(), callbacks=make())
    with pytest.raises(Killed):
        fit(plain_rate(), kept(tmp_path), Kill(step), callbacks=make())
    assert_same(fit(plain_rate(), kept(tmp_path), callbacks=make()), whole)


def test_stopped_early_it_is_not_gone_on_with(tmp_path):
    class KillLate(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            raise Killed

    whole = fit(plain_rate(), callbacks=early())
    assert len(whole.history.epoch) == 2 < EPOCHS
    with pytest.raises(Killed):  # when all is saved but the end of the run
        fit(plain_rate(), kept(tmp_path), callbacks=[KillLate(), *early()])
    again = fit(plain_rate(), kept(tmp_path), Kill(1), callbacks=early())
    assert_same(again, whole)
    assert_same(fit(plain_rate(), kept(tmp_path), callbacks=early()), whole)


@pytest.mark.slow
def test_swapped_averages(tmp_path):
    def make():
        return [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)]

    averaged = MAKERS["averages"]
    whole = fit(averaged(), callbacks=make())
    for step in (4, 6, 12):
        with pytest.raises(Killed):
            fit(averaged(), kept(tmp_path), Kill(step), callbacks=make())
    assert_same(fit(averaged(), kept(tmp_path), callbacks=make()), whole)


@pytest.mark.slow
def test_logs_are_those_of_one_run(tmp_path):
    def logs(folder):
        folder.mkdir(exist_ok=True)
        return [
            keras.callbacks.CSVLogger(str(folder / "log.csv")),
            MetricsLog(folder / "log.jsonl", every=1),
            keras.callbacks.ModelCheckpoint(
                str(folder / "best.weights.h5"),
                monitor="loss",
                save_best_only=True,
                save_weights_only=True,
            ),
        ]

    fit(classifier(), callbacks=logs(tmp_path / "whole"))
    for step in (8, 14):
        killed = logs(tmp_path / "parts")
        with pytest.raises(Killed):
            fit(classifier(), kept(tmp_path), Kill(step), callbacks=killed)
        killed[0].csv_file.close()
    fit(classifier(), kept(tmp_path), callbacks=logs(tmp_path / "parts"))
    csv = [(tmp_path / name / "log.csv").read_text() for name in ("whole", "parts")]
    assert csv[0] == csv[1] and csv[0].count("\n") == 1 + EPOCHS
    lines = [
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("whole", "parts")
    ]
    seconds = [[line.pop("seconds") for line in part] for part in lines]
    assert lines[0] == lines[1] and len(lines[0]) == EPOCHS * (STEPS + 1)
    assert sorted(seconds[1]) == seconds[1]


@pytest.mark.parametrize("objective", ["masked", *slow("denoising", "contrastive")])
def test_pretraining_with_its_noise(tmp_path, objective):
    def make():
        keras.utils.set_random_seed(0)
        return Pretraining.from_preset(
            "llama-tiny", objective=objective, backbone_arguments=SMALL, max_sequence_length=64
        )

    def learn(model, checkpoints=None, *callbacks):
        held_out = {} if objective == "contrastive" else {"validation_data": TEXTS[:6]}
        arguments = {"epochs": 2, "batch_size": 4, "callbacks": list(callbacks), "verbose": 0}
        model.fit(TEXTS, checkpoints=checkpoints, **held_out, **arguments)
        return model

    whole = learn(make())
    for step in (3, 8):
        with pytest.raises(Killed):
            learn(make(), kept(tmp_path), Kill(step))
    assert_same(learn(make(), kept(tmp_path)), whole)


@pytest.mark.slow
def test_an_embedder_whose_validation_stays_the_same(tmp_path):
    pairs = [(text, f"{text} again") for text in TEXTS]

    def make():
        keras.utils.set_random_seed(0)
        return Embedder.from_preset("llama-tiny", backbone_arguments=SMALL)

    def learn(model, checkpoints=None, *callbacks):
        arguments = {"epochs": 3, "batch_size": 4, "callbacks": list(callbacks), "verbose": 0}
        model.fit(pairs, validation_data=pairs[:10], checkpoints=checkpoints, **arguments)
        return model

    whole = learn(make())
    for step in (3, 8):
        with pytest.raises(Killed):
            learn(make(), kept(tmp_path), Kill(step))
    assert_same(learn(make(), kept(tmp_path)), whole)


def test_the_best_is_kept_and_a_damaged_one_passed_over(tmp_path, expected, caplog):
    settings = {"keep": 1, "best": "val_loss"}
    with pytest.raises(Killed):
        fit(classifier(), kept(tmp_path, **settings), Kill(13))
    store = kept(tmp_path, **settings)
    losses = expected.history.history["val_loss"][:2]
    assert store.best_name() == f"step-{5 * (1 + int(np.argmin(losses))):09d}"
    assert store.names()[-1] == "step-000000012" and len(store.names()) == 2
    arrays = tmp_path / "checkpoints" / "step-000000012.safetensors"
    arrays.write_bytes(arrays.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING, logger="llama_keras"):
        assert_same(fit(classifier(), store), expected)
    assert "step-000000012.json is damaged" in caplog.text


def test_a_probe_begins_anew(tmp_path):
    model = fit(classifier("linear_probe"), kept(tmp_path), epochs=1)
    assert model.predict(TEXTS[:1], verbose=0)
    assert not (tmp_path / "checkpoints").exists()
