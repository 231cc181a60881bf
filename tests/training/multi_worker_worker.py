"""Trains in one of several processes; `test_multi_worker` compares what each of them writes.

    TF_CONFIG=… python -m tests.training.multi_worker_worker FOLDER CASE … [--resume]

Without TF_CONFIG it trains in one process. Writes FOLDER/NUMBER.npz, `one` for the one process.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from llama_keras.data.shares import shard_by_rows
from llama_keras.errors import InputError
from llama_keras.tasks import TextClassifier
from llama_keras.tasks.task import Task
from llama_keras.training import AdamW, Checkpoints, ExactTrainer, strategies
from llama_keras.training.strategies import get_distribution, is_chief, wait_for_workers
from tests.training import replica_worker


class Model(ExactTrainer, keras.Model):
    pass


def small(folder, strategy):
    """Everything of Keras on plain data: 21 rows in batches of 8, the last of which has 5."""
    inputs = keras.Input((3,))
    model = Model(inputs, keras.layers.Dense(2)(inputs))
    model.compile(keras.optimizers.AdamW(1e-2, global_clipnorm=0.1), loss="mse", metrics=["mae"])
    x = np.random.default_rng(0).normal(size=(21, 3)).astype("float32")
    y = x[:, :2]
    found = {}
    pairs = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    history = model.fit(pairs, epochs=2, validation_data=(x[:5], y[:5]), verbose=0).history
    found |= {f"history {name}": np.array(values) for name, values in history.items()}
    model.fit(x, y, batch_size=8, verbose=0, shuffle=False)
    if is_chief(strategy):
        with tf.io.TFRecordWriter(str(folder / "rows")) as file:
            for row in x:
                file.write(row.tobytes())
    wait_for_workers(strategy)
    # One file, which TensorFlow by itself cannot share out.
    records = tf.data.TFRecordDataset(str(folder / "rows")).map(_parse).batch(8)
    model.fit(records, verbose=0)
    found["evaluated"] = np.array(model.evaluate(records, verbose=0))
    found["on a batch"] = np.array(model.train_on_batch(x[:8], y[:8]))
    found["predicted"] = model.predict(x, batch_size=8, verbose=0)
    return model, found


def _parse(record):
    row = tf.ensure_shape(tf.io.decode_raw(record, tf.float32), [3])
    return row, row[:2]


def rows(folder, strategy):
    """Which rows come to this worker: of a plain data set, and of a task's texts."""
    numbers = tf.data.Dataset.range(21).batch(8)
    shared = strategy.experimental_distribute_dataset(shard_by_rows(numbers))
    found = {"rows": _seen(shared, strategy)}
    inputs = keras.Input((3,))
    model = Model(inputs, inputs)

    def batches(share):
        return share.split(tf.data.Dataset.range(21).batch(8)).repeat(2)

    return None, {**found, "rows of a task": _seen(model.distributed(batches), strategy)}


def _seen(dataset, strategy):
    seen = []
    for batch, value in enumerate(dataset):
        for part in strategy.experimental_local_results(value):
            seen += [(batch, int(row)) for row in part]
    return np.array(seen)


class _Killed(keras.callbacks.Callback):
    """Kills worker 1 at its fifth batch, which is the second one of the second epoch."""

    count = 0

    def on_train_batch_end(self, batch, logs=None):
        self.count += 1
        if self.count == 5:
            os.kill(os.getpid(), signal.SIGKILL)


def killed(folder, strategy):
    """Three epochs of three batches with dropout and an average of the weights."""
    model = TextClassifier.from_preset(
        "llama-tiny", labels=["a", "b"], backbone_arguments={"num_layers": 1, "dropout": 0.1}
    )
    optimizer = AdamW(1e-3, global_clipnorm=0.1, use_ema=True, ema_momentum=0.9)
    model.compile(optimizer)
    kept = Checkpoints(folder=folder / "checkpoints", every=2)
    texts = [f"{'so ' * (i % 5)}it goes {i}" for i in range(9)]
    dies = "--killed" in sys.argv and "--resume" not in sys.argv and not is_chief(strategy)
    history = model.fit(
        texts,
        ["a" if i % 3 else "b" for i in range(9)],
        batch_size=4,
        epochs=3,
        verbose=0,
        checkpoints=kept,
        callbacks=[_Killed()] if dies else [],
    ).history
    return model, {f"history {name}": np.array(values) for name, values in history.items()}


def _replicas_case(case):
    def run(folder, strategy):
        model, numbers = case()
        return model, {"numbers": np.hstack(numbers)}

    return run


CASES = {case.__name__: _replicas_case(case) for case in replica_worker.CASES.values()}
CASES |= {case.__name__: case for case in (small, rows, killed)}


def save(model, folder, strategy):
    """Saves a task by all workers, of which one writes; another model by the chief alone."""
    if isinstance(model, Task):
        model.save(folder / ("chief.keras" if is_chief(strategy) else "other.keras"))
        with strategy.scope(), contextlib.suppress(InputError):
            model.save(folder / "in scope.keras")
    elif model is not None and is_chief(strategy):
        keras.saving.save_model(model, folder / "chief.keras")


def check_patience():
    """Asserts that the strategy took our timeouts, for which there is no public way."""
    from tensorflow.python.eager import context

    service: Any = context.context()
    assert (
        service.coordination_service.heartbeat_timeout_in_ms == 1000 * strategies.HEARTBEAT_SECONDS
    )
    assert (
        service.coordination_service.cluster_register_timeout_in_ms
        == 1000 * strategies.START_SECONDS
    )


def main(folder: Path, names: list[str]) -> None:
    several = "TF_CONFIG" in os.environ
    strategy = get_distribution("multi_worker" if several else "none")
    if several:
        check_patience()
    found = {}
    for name in names:
        with strategy.scope():
            keras.utils.set_random_seed(3)
            model, values = CASES[name](folder, strategy)
        found |= {f"{name}/{key}": value for key, value in values.items()}
        for place, weight in enumerate(model.get_weights() if model else ()):
            found[f"{name}/weight {place}"] = weight
        save(model, folder, strategy)
    number = strategy.cluster_resolver.task_id if several else "one"
    np.savez(folder / f"{number}.npz", **found)
    wait_for_workers(strategy)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [name for name in sys.argv[2:] if not name.startswith("--")])
