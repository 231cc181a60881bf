import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_keras.data.bucketing import TokenRows, epoch_sizes, training_batches
from llama_keras.tasks import TextClassifier
from llama_keras.training.throughput import Throughput, peak_memory

TEXTS = [f"{'so ' * (i % 7)}it goes {i}" for i in range(11)]
LABELS = ["a" if i % 2 else "b" for i in range(11)]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 7), st.integers(0, 3))
def test_sizes_are_those_of_the_batches(lengths, batch_size, epoch):
    rows = TokenRows([[1] * length for length in lengths], 0)
    made, steps = training_batches(
        rows, batch_size=batch_size, seed=3, first_step=epoch * -(-len(lengths) // batch_size)
    )
    sizes = epoch_sizes(rows.lengths, batch_size=batch_size, seed=3, epoch=epoch)
    masks = [batch["padding_mask"] for batch in made.take(steps).as_numpy_iterator()]
    assert sizes.tokens.tolist() == [mask.sum() for mask in masks]
    assert sizes.places.tolist() == [mask.size for mask in masks]


def test_replicas_pad_their_own_rows_alone():
    sizes = epoch_sizes(np.array([1, 1, 5, 5]), batch_size=4, seed=0, epoch=0, replicas=2)
    assert sizes.tokens.tolist() == [12]
    assert sizes.places.tolist() in ([12], [20])  # sorted by length: 1 5 | 1 5 to two replicas


class Logs(keras.callbacks.Callback):
    """Keeps what the progress bar is shown."""

    def __init__(self):
        super().__init__()
        self.rates = []

    def on_train_batch_end(self, batch, logs=None):
        self.rates.append((logs or {}).get("tokens_per_second"))


def fitted(**arguments):
    model = TextClassifier.from_preset("llama-tiny", labels=["a", "b"], strategy="lora")
    speed, logs = Throughput(**arguments), Logs()
    history = model.fit(TEXTS, LABELS, batch_size=4, epochs=2, verbose=0, callbacks=[speed, logs])
    return model, speed, logs, history


def test_all_but_the_first_step_is_counted(tmp_path):
    model, speed, logs, history = fitted(log_dir=tmp_path, every=2)
    sizes = [model.batch_sizes(epoch=epoch) for epoch in range(2)]
    counted = sum(int(size.tokens.sum()) for size in sizes) - int(sizes[0].tokens[0])
    assert speed.tokens == counted and speed.tokens <= speed.places
    assert logs.rates[0] is None and all(rate > 0 for rate in logs.rates[1:])
    found = speed.results()
    assert found["tokens_per_second"] == pytest.approx(counted / speed.seconds)
    assert 0 <= found["padding_share"] < 1
    assert "tokens/s" in speed.summary() and "peak memory" in speed.summary()
    assert not any("tokens" in name for name in history.history)
    (file,) = tmp_path.glob("events*")
    tags = {
        v.tag
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for v in event.summary.value
    }
    assert {"throughput/tokens_per_second", "throughput/padding_share"} <= tags


def test_operations_are_six_a_weight_and_four_a_frozen_one():
    model, speed, _, _ = fitted()
    kernels = [
        weight
        for layer in model.backbone.transformer_layers
        for weight in layer.weights
        if len(weight.shape) == 2
    ]
    expected = sum(int(np.prod(w.shape)) * (6 if w.trainable else 4) for w in kernels)
    rate = speed.results()["flops_per_second"] / speed.tokens_per_second
    assert rate == pytest.approx(expected)


def test_without_sizes_only_memory_is_told():
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    model.compile("sgd", loss="mse")
    speed = Throughput()
    model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0, callbacks=[speed])
    assert set(speed.results()) == {"peak_memory_bytes"}
    assert peak_memory() > 100e6
