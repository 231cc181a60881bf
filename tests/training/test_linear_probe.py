import numpy as np
import pytest

from llama_keras.data.bucketing import TokenRows
from llama_keras.errors import InputError
from llama_keras.models import LlamaBackbone
from llama_keras.training import linear_probe
from llama_keras.training.linear_probe import Probe, fit_probe

BOTH = np.array([0, 1, 0, 1], "int32")


def rows(labels):
    return TokenRows([[5 + i, 6] for i in range(len(labels))], pad_id=0, labels=np.array(labels))


def solve(train, *, layer):
    return fit_probe(
        LlamaBackbone.from_preset("llama-tiny"),
        train,
        rows(BOTH),
        layer=layer,
        penalties=[0.1],
        pooling="last",
        batch_size=4,
        num_classes=2,
    )


@pytest.mark.parametrize("layer", [None, 1])
def test_one_label_alone_is_refused(layer):
    with pytest.raises(InputError, match="two or more labels .* the 3 texts to solve by have one"):
        solve(rows([1, 1, 1]), layer=layer)


def test_one_label_in_the_part_that_chooses_the_layer_is_refused(monkeypatch):
    monkeypatch.setattr(linear_probe, "MOST_ROWS_TO_CHOOSE", 2)
    with pytest.raises(InputError, match="the 2 texts to solve by have one"):
        solve(rows([0, 1, 0]), layer=None)
    assert solve(rows([0, 1, 0]), layer=1).layer == 1  # which nothing has to choose


def test_the_dense_layer_answers_as_the_regression():
    features = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    labels = (features[:, 0] > 0) + 2 * (features[:, 1] > 0.5)
    for wanted in (labels, labels % 2):
        probe = Probe(features, wanted, 1.0)
        kernel, bias = probe.dense_weights(5)
        found = (features @ kernel + bias).argmax(axis=1)
        assert np.mean(found == wanted) == pytest.approx(probe.accuracy(features, wanted))
        assert set(found) <= set(wanted)
