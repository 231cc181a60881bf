from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from llama_keras.errors import InputError
from llama_keras.models import LlamaBackbone
from llama_keras.training.fine_tuning import (
    STRATEGIES,
    BitFit,
    Full,
    GradualUnfreezing,
    LayerwiseDecay,
    Lora,
    TopLayers,
    get_strategy,
    strategy_config,
    trainable_share,
)


class Task:
    def __init__(self):
        self.backbone = LlamaBackbone.from_preset("llama-tiny")

    @property
    def weights(self):
        return self.backbone.weights

    @property
    def trainable_weights(self):
        return self.backbone.trainable_weights


@pytest.mark.parametrize("name", STRATEGIES)
def test_strategies_are_found_by_name_or_taken_as_they_are(name):
    strategy = get_strategy(name)
    assert strategy.name == name
    assert get_strategy(strategy) is strategy


def test_an_unknown_strategy_names_the_known_ones():
    with pytest.raises(InputError, match="full.*linear_probe.*lora"):
        get_strategy("magic")


def test_each_strategy_trains_what_it_says():
    task = Task()
    Full().prepare(task)
    assert trainable_share(task).endswith("(100.00 %)")
    STRATEGIES["linear_probe"]().prepare(task)
    assert trainable_share(task).startswith("0 of ")
    Lora(rank=2, targets=("query_dense",)).prepare(task)
    assert {w.path.split("/")[-1] for w in task.trainable_weights} == {
        "lora_kernel_a",
        "lora_kernel_b",
    }
    assert all("query_dense" in w.path for w in task.trainable_weights)
    Full().prepare(task)
    assert trainable_share(task).endswith("(100.00 %)")  # the kernels beside the updates, too
    task = Task()
    Lora(rank=2, targets=("query_dense",)).prepare(task)
    count = len(task.weights)
    Lora(rank=2).prepare(task)  # a second fit goes on with the updates that are there
    assert len(task.weights) == count


@pytest.mark.parametrize(
    ("learning", "total", "said"), [(0, 7, "0.00 %"), (3, 10**6, "under 0.01 %"), (1, 8, "12.50 %")]
)
def test_a_share_that_is_small_is_not_called_none(learning, total, said):
    weights = {"trainable_weights": [np.zeros(learning)], "weights": [np.zeros(total)]}
    task: Any = SimpleNamespace(**weights)
    assert trainable_share(task) == f"{learning:,} of {total:,} weights learn ({said})"


def learning_blocks(task):
    parts = {w.path.split("/")[0] for w in task.trainable_weights}
    return sorted(part for part in parts if part.startswith("transformer_layer"))


def test_top_layers_leave_what_lies_below():
    task = Task()
    TopLayers(layers=1).prepare(task)
    last = len(task.backbone.transformer_layers) - 1
    assert learning_blocks(task) == [f"transformer_layer_{last}"]
    assert any("layer_norm" in w.path for w in task.trainable_weights)
    assert not any("embedding" in w.path for w in task.trainable_weights)
    Full().prepare(task)  # a later strategy finds nothing frozen
    assert len(task.trainable_weights) == len(task.weights)
    with pytest.raises(InputError, match=r"1 … 2 blocks .* received layers=9"):
        TopLayers(layers=9).prepare(task)


def test_bitfit_trains_vectors_alone():
    task = Task()
    BitFit().prepare(task)
    assert task.trainable_weights
    assert all(len(w.shape) == 1 for w in task.trainable_weights)
    assert len(learning_blocks(task)) == len(task.backbone.transformer_layers)


def test_rates_fall_with_depth():
    rates = LayerwiseDecay(decay=0.5).depth_rates(2, 100)
    assert rates.shares == [0.125, 0.25, 0.5, 1.0]
    assert Full().depth_rates(2, 100) is None


def test_blocks_join_in_from_the_top():
    rates = GradualUnfreezing(complete_at=0.6).depth_rates(2, 100)
    assert rates.starts == [60, 40, 20, 0]
    assert GradualUnfreezing().depth_rates(2, 0).starts == [0, 0, 0, 0]


@pytest.mark.parametrize("name", STRATEGIES)
def test_settings_survive_as_plain_values(name):
    config = strategy_config(get_strategy(name))
    assert strategy_config(get_strategy(config)) == config
    assert all(not isinstance(value, tuple) for value in config.values())


def test_an_unknown_setting_names_the_known_ones():
    with pytest.raises(InputError, match=r"lora has no setting \['ranks'\]; it has .*'rank'"):
        get_strategy({"name": "lora", "ranks": 3})
