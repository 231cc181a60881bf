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
    LinearProbe,
    Lora,
    TopLayers,
    get_strategy,
    strategy_config,
    trainable_share,
)


class Task:
    def __init__(self, **arguments):
        self.backbone = LlamaBackbone.from_preset("llama-tiny", **arguments)

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
    assert GradualUnfreezing(complete_at=1).depth_rates(2, 3).starts == [3, 2, 1, 0]


@pytest.mark.parametrize("name", STRATEGIES)
def test_settings_survive_as_plain_values(name):
    config = strategy_config(get_strategy(name))
    assert strategy_config(get_strategy(config)) == config
    assert all(not isinstance(value, tuple) for value in config.values())


def test_an_unknown_setting_names_the_known_ones():
    with pytest.raises(InputError, match=r"lora has no setting \['ranks'\]; it has .*'rank'"):
        get_strategy({"name": "lora", "ranks": 3})


def test_top_layers_and_an_output_matrix_of_its_own():
    task = Task(tie_word_embeddings=False)
    TopLayers(layers=1).prepare(task)
    learning = {w.path for w in task.trainable_weights if "embedding" in w.path}
    assert learning == {"token_embedding/reverse_embeddings"}
    Full().prepare(task)
    assert len(task.trainable_weights) == len(task.weights)


def test_lora_takes_the_projections_that_there_are_and_no_other_names():
    with pytest.raises(InputError, match=r"named q_proj, v_proj in .* be .*'query_dense'"):
        Lora(targets=("q_proj", "query_dense", "v_proj")).prepare(Task())
    for name in ("layer_norm", "dropout", ""):  # has no updates, has no weights, is no layer
        task = Task()
        with pytest.raises(InputError, match="layer"):
            Lora(targets=(name, "query_dense")).prepare(task)
        assert len(task.trainable_weights) == len(task.weights)
    task = Task(feed_forward="mlp")
    Lora().prepare(task)  # without a gate
    assert any("up_dense" in w.path for w in task.trainable_weights)
    with pytest.raises(InputError, match="no layer named gate_dense"):
        Lora(targets=("gate_dense", "up_dense")).prepare(Task(feed_forward="mlp"))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("full", {"learning_rate": 0.0}, "full takes a positive number for learning_rate"),
        ("full", {"learning_rate": float("nan")}, "received nan"),
        ("bitfit", {"learning_rate": "5e-4"}, "received '5e-4'"),
        ("lora", {"rank": 0}, "lora takes an integer of 1 or more for rank; received 0"),
        ("lora", {"rank": 8.0}, "received 8.0"),
        ("lora", {"rank": True}, "received True"),
        ("lora", {"targets": "query_dense"}, "one or more names of layers for targets"),
        ("lora", {"targets": []}, "one or more names"),
        ("lora", {"targets": [1]}, "one or more names"),
        ("linear_probe", {"layer": 0}, "an integer of 1 or more for layer"),
        ("linear_probe", {"penalties": []}, "positive numbers for penalties"),
        ("linear_probe", {"penalties": [0.1, 0]}, "positive numbers for penalties"),
        ("top_layers", {"layers": 0}, "an integer of 1 or more for layers"),
        ("top_layers", {"layers": 1.5}, "an integer of 1 or more for layers"),
        ("layerwise_lr_decay", {"decay": 0}, "above 0 and up to 1 for decay"),
        ("layerwise_lr_decay", {"decay": 1.1}, "above 0 and up to 1 for decay"),
        ("gradual_unfreezing", {"complete_at": -0.5}, "above 0 and up to 1 for complete_at"),
        ("gradual_unfreezing", {"complete_at": None}, "received None"),
    ],
)
def test_wrong_settings_are_named(name, settings, message):
    with pytest.raises(InputError, match=message):
        get_strategy({"name": name, **settings})
    with pytest.raises(InputError, match=message):
        STRATEGIES[name](**settings)


def test_a_list_of_targets_is_a_tuple():
    assert Lora(targets=["query_dense"]) == Lora(targets=("query_dense",))  # pyright: ignore


def test_a_layer_that_the_backbone_has_not():
    with pytest.raises(InputError, match=r"keep 1 … 2 blocks .* received layer=3"):
        LinearProbe(layer=3).prepare(Task())


def test_what_is_no_strategy_is_named():
    with pytest.raises(InputError, match="neither a name of .* nor an object"):
        get_strategy(3)  # pyright: ignore[reportArgumentType]
