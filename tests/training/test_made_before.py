import keras
import numpy as np
import pytest
import tensorflow as tf

from llama_keras.errors import InputError
from llama_keras.training import ExactTrainer
from llama_keras.training.made_before import build_metrics, build_optimizer


class Counting(ExactTrainer, keras.Model):
    """Counts how often its steps are traced, or carried out where nothing is."""

    trained = tested = 0

    def train_step(self, data):
        self.trained += 1
        return super().train_step(data)

    def test_step(self, data):
        self.tested += 1
        return super().test_step(data)


def make_model(**settings):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    model = Counting(inputs, keras.layers.Dense(3, activation="softmax")(inputs))
    # The first is made at the first batch, and so are the variables of the second.
    metrics = ["accuracy", keras.metrics.F1Score(average="macro")]
    model.compile("adamw", "categorical_crossentropy", metrics=metrics, **settings)
    return model


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(24, 4)).astype("float32")
    return x, np.eye(3, dtype="float32")[x[:, :3].argmax(1)]


@pytest.mark.parametrize("parts", [1, 2])
def test_steps_are_traced_once(rows, parts):
    model = make_model(gradient_accumulation_steps=parts)
    model.fit(*rows, validation_data=rows, batch_size=8, epochs=2, verbose=0)
    assert (model.trained, model.tested) == (1, 1)
    model.fit(*rows, batch_size=8, verbose=0)
    assert model.trained == 1
    evaluated = make_model()
    evaluated.evaluate(*rows, batch_size=8, verbose=0)
    assert evaluated.tested == 1


def test_what_is_learned_and_counted_is_that_of_steps_without_a_graph(rows):
    graph, eager = make_model(), make_model(run_eagerly=True)
    history = [
        model.fit(
            *rows,
            sample_weight=np.linspace(0.1, 1, 24),
            validation_data=rows,
            batch_size=8,
            epochs=2,
            shuffle=False,
            verbose=0,
        )
        for model in (graph, eager)
    ]
    assert eager.trained == 6
    assert set(history[0].history) >= {"accuracy", "f1_score", "val_f1_score"}
    for name, values in history[1].history.items():
        assert history[0].history[name] == pytest.approx(values, rel=1e-5)
    for found, expected in zip(graph.get_weights(), eager.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_metrics_of_another_compile_are_made_too(rows):
    model = make_model()
    model.fit(*rows, batch_size=8, verbose=0)
    model.compile("sgd", "categorical_crossentropy", metrics=["categorical_accuracy"])
    model.fit(*rows, batch_size=8, verbose=0)
    assert model.trained == 2
    assert "categorical_accuracy" in model.evaluate(*rows, verbose=0, return_dict=True)


def test_the_optimizer_is_built_as_keras_builds_it(rows):
    model, plain = make_model(), keras.optimizers.AdamW()
    model.fit(*rows, batch_size=8, verbose=0)
    plain.build(model.trainable_variables)
    built = [(v.name, v.shape, v.dtype) for v in model.optimizer.variables]
    assert built == [(v.name, v.shape, v.dtype) for v in plain.variables]
    build_optimizer(model.optimizer, model.trainable_variables)  # nothing is made again
    assert len(model.optimizer.variables) == len(built)


def test_variables_stand_beside_those_of_the_model():
    weight = keras.Variable(np.ones(2, "float32"))
    made = []

    @tf.function
    def traced(x):
        def update(value):
            if not made:
                made.append(tf.Variable(tf.zeros(value.shape[-1:])))
            return made[0].assign_add(value)

        build_metrics(update, x, near=[weight])
        return update(x)

    np.testing.assert_array_equal(traced(tf.constant([1.0, 2.0])), [1, 2])
    assert made[0].device == weight.value.device
    assert traced.experimental_get_tracing_count() == 1


def test_an_error_in_a_metric_is_raised_as_it_is(rows):
    class Failing(keras.metrics.Mean):
        def update_state(self, y_true, y_pred, sample_weight=None):
            raise InputError("no such metric")

    model = make_model()
    model.compile("sgd", "categorical_crossentropy", metrics=[Failing()])
    with pytest.raises(InputError, match="no such metric"):
        model.fit(*rows, batch_size=8, verbose=0)
