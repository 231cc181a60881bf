"""A `fit` that is killed, and what should come of it."""

import keras
import numpy as np

from llama_keras.tasks import TextClassifier
from llama_keras.training import Checkpoints

LABELS = ["bad", "good"]
# 5 batches of 4 in an epoch, the last one smaller.
TEXTS = [f"{LABELS[i % 2]} day {'la ' * (i % 5)}{i}" for i in range(18)]
ANSWERS = [LABELS[i % 2] for i in range(18)]
HELD_OUT = (TEXTS[:6], ANSWERS[:6])
STEPS, EPOCHS = 5, 3
SMALL = {"num_layers": 1, "dropout": 0.1}


class Killed(Exception):
    pass


class Kill(keras.callbacks.Callback):
    """Stands for the end of the process: after a batch, before anything is saved."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch * STEPS + batch + 1 == self.step:
            raise Killed


class KillAtEpochEnd(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            raise Killed


def classifier(strategy="full", **arguments):
    keras.utils.set_random_seed(0)
    return TextClassifier.from_preset(
        "llama-tiny",
        labels=LABELS,
        strategy=strategy,
        dropout=0.2,
        backbone_arguments=SMALL,
        **arguments,
    )


def state_of(model):
    variables = [*model.variables, *model.optimizer.variables]
    return [np.asarray(v.numpy()) for v in variables]


def assert_same(found, expected):
    for a, b in zip(state_of(found), state_of(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    assert found.history.history == expected.history.history
    assert found.history.epoch == expected.history.epoch
    assert found.stop_training == expected.stop_training


def fit(model, checkpoints=None, *more, callbacks=(), **arguments):
    arguments = {"validation_data": HELD_OUT, "batch_size": 4, "epochs": EPOCHS, **arguments}
    callbacks = [*callbacks, *more]
    model.fit(TEXTS, ANSWERS, checkpoints=checkpoints, callbacks=callbacks, verbose=0, **arguments)
    return model


def kept(folder, **settings):
    return Checkpoints(folder=folder / "checkpoints", **{"every": 2, "minutes": None, **settings})


def plain_rate():
    model = classifier()
    model.compile(keras.optimizers.Adam(0.03))
    return model


def early():
    early_stopping = keras.callbacks.EarlyStopping
    return [early_stopping("val_loss", patience=1, min_delta=9.0, restore_best_weights=True)]
