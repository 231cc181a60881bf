import keras
import numpy as np
import pytest

from llama_keras.layers import dropout as module
from llama_keras.layers.dropout import Dropout


@pytest.fixture
def replica():
    number = {"is": 0}
    before = module._replica
    module.number_replicas(lambda: number["is"])
    yield number
    module.number_replicas(before)


def test_the_first_replica_drops_what_keras_drops(replica):
    ours, theirs = Dropout(0.5, seed=3), keras.layers.Dropout(0.5, seed=3)
    for _ in range(2):
        a, b = (layer(np.ones((4, 8), "float32"), training=True) for layer in (ours, theirs))
        np.testing.assert_array_equal(a, b)


def test_others_drop_something_else_and_the_same_again(replica):
    def draw(number):
        replica["is"] = number
        return np.asarray(Dropout(0.5, seed=3)(np.ones((4, 8), "float32"), training=True))

    masks = [draw(number) for number in range(3)]
    assert all((a != b).any() for i, a in enumerate(masks) for b in masks[:i])
    np.testing.assert_array_equal(draw(2), masks[2])


def test_one_state_is_kept():
    assert len(Dropout(0.5).variables) == 1
    assert not Dropout(0.0).variables


def test_config_round_trip():
    layer = Dropout(0.25, seed=4)
    again = Dropout.from_config(layer.get_config())
    assert (again.rate, again.seed) == (0.25, 4)
