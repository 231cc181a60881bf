"""Trains and measures on several replicas; `test_exact_trainer` compares what it writes.

    python -m tests.training.replica_worker REPLICAS FILE.npz CASE …

Logical devices can only be made before TensorFlow starts, hence a process for each number.
"""

import contextlib
import sys

import keras
import numpy as np
import tensorflow as tf

from llama_keras.errors import InputError
from llama_keras.layers.dropout import Dropout
from llama_keras.tasks import CausalLM, Embedder, Pretraining, TextClassifier, TokenClassifier
from llama_keras.training import ExactTrainer


class Model(ExactTrainer, keras.Model):
    """What people make of the mixin."""


ONE_LAYER = {"backbone_arguments": {"num_layers": 1}}
SMALL = {"batch_size": 4, "epochs": 2, "verbose": 0}


def text_classifier():
    model = TextClassifier.from_preset("llama-tiny", labels=["a", "b"], **ONE_LAYER)
    texts = [f"{'so ' * (i % 5)}it goes {i}" for i in range(9)]
    labels = ["a" if i % 3 else "b" for i in range(9)]
    held_out = (texts[:5], labels[:5])
    history = model.fit(
        texts, labels, validation_data=held_out, class_weight={0: 1.0, 1: 3.0}, **SMALL
    )
    return model, [*history.history.values(), *model.evaluate(texts, labels, verbose=0).values()]


def token_classifier():
    model = TokenClassifier.from_preset("llama-tiny", labels=["X"], head="crf", **ONE_LAYER)
    words = [["one"] * (1 + 5 * (i % 3)) for i in range(9)]
    tags = [["B-X"] + ["O"] * (len(row) - 1) for row in words]
    history = model.fit(words, tags, **SMALL)
    return model, [*history.history.values(), *model.evaluate(words, tags, verbose=0).values()]


def embedder():
    model = Embedder.from_preset("llama-tiny", **ONE_LAYER)
    pairs = [(f"question {i}", f"answer {i} {'more ' * (i % 4)}") for i in range(7)]
    history = model.fit(pairs, **SMALL)
    return model, [*history.history.values()]


def pretraining():
    model = Pretraining.from_preset("llama-tiny", objective="denoising", **ONE_LAYER)
    history = model.fit([f"{'la ' * (i % 6)}text {i}" for i in range(9)], **SMALL)
    return model, [*history.history.values()]


def packed():
    """Rows of several texts in rematerialized blocks; the last batch leaves a replica none."""
    arguments = {"num_layers": 1, "rematerialize": True}
    model = CausalLM.from_preset("llama-tiny", max_sequence_length=32, backbone_arguments=arguments)
    texts = [f"{'la ' * (i % 6)}text {i}" for i in range(9)]
    history = model.fit(texts, packing=True, **SMALL)
    return model, [*history.history.values()]


def summed_loss():
    """A sum, not a mean, with a regularizer, in parts that do not divide the batch."""
    inputs = keras.Input((3,))
    head = keras.layers.Dense(1, kernel_regularizer=keras.regularizers.L2(0.1))
    model = Model(inputs, head(inputs))
    loss = keras.losses.MeanSquaredError(reduction="sum")
    model.compile("sgd", loss=loss, gradient_accumulation_steps=3)
    x = np.random.default_rng(0).normal(size=(10, 3)).astype("float32")
    history = model.fit(x, x[:, :1], batch_size=10, epochs=2, verbose=0, shuffle=False)
    return model, [history.history["loss"]]


def masked_losses():
    """Means over what Keras's masks and `ignore_class` leave, unequal between replicas."""
    numbers = np.random.default_rng(0)
    token_ids = numbers.integers(1, 9, (12, 6)).astype("int32")
    token_ids[np.arange(6)[None] >= numbers.integers(1, 7, (12, 1))] = 0
    inputs = keras.Input((6,), dtype="int32")
    embedded = keras.layers.Embedding(9, 4, mask_zero=True)(inputs)
    model = Model(inputs, keras.layers.Dense(9)(embedded))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=3)
    model.compile(keras.optimizers.SGD(0.5), loss=loss)
    fit = {"batch_size": 4, "epochs": 2, "verbose": 0, "shuffle": False}
    history = model.fit(token_ids, token_ids, **fit)
    model.train_on_batch(token_ids[:5], token_ids[:5])
    return model, [history.history["loss"]]


CASES = {
    case.__name__: case
    for case in (
        text_classifier,
        token_classifier,
        embedder,
        pretraining,
        packed,
        summed_loss,
        masked_losses,
    )
}


def overflow():
    """Gives the weights before and after a step that overflows on one replica, and the scale."""
    inputs = keras.Input((2,))
    model = Model(inputs, keras.layers.Dense(1)(inputs))
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(), initial_scale=1024.0)
    model.compile(optimizer, loss="mse")
    x = np.array([[1, 1], [1, 1], [1, 1], [1, np.inf]], "float32")
    before = model.get_weights()
    model.fit(x, np.ones((4, 1)), batch_size=4, verbose=0, shuffle=False)
    same = all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))
    return [float(same), float(optimizer.dynamic_scale.numpy())]


def dropout_masks(strategy):
    """Gives two draws on each replica: (draws, replicas, values)."""
    layer = Dropout(0.5, seed=7)
    layer.build((64,))

    @tf.function
    def draw():
        return strategy.run(lambda: layer(tf.ones((64,)), training=True))

    return np.array([strategy.experimental_local_results(draw()) for _ in range(2)])


def refusals():
    inputs = keras.Input((2,))
    model = Model(inputs, keras.layers.Dense(1)(inputs))
    found = []
    for settings in (
        {"gradient_accumulation_steps": 2},
        {"use_ema": True, "ema_overwrite_frequency": 2},
    ):
        try:
            model.compile(keras.optimizers.SGD(**settings), loss="mse")
        except InputError as error:
            found.append(str(error))
    return found


def main(replicas: int, file: str, cases: list[str]) -> None:
    scope = contextlib.nullcontext()
    if replicas > 1:
        devices = [tf.config.LogicalDeviceConfiguration()] * replicas
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, devices)
        strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])
        scope = strategy.scope()
    found = {}
    with scope:
        for case in cases:
            keras.utils.set_random_seed(3)
            model, numbers = CASES[case]()
            found[f"{case}/numbers"] = np.hstack(numbers)
            for place, weight in enumerate(model.get_weights()):
                found[f"{case}/{place}"] = weight
        found["overflow"] = np.array(overflow())
        if replicas > 1:
            found["refusals"] = np.array(refusals())
            found["masks"] = dropout_masks(strategy)
            found["masks again"] = dropout_masks(strategy)
    np.savez(file, **found)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
