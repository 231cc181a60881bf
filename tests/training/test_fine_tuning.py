import pytest

from llama_keras.errors import InputError
from llama_keras.models import LlamaBackbone
from llama_keras.training.fine_tuning import STRATEGIES, Full, Lora, get_strategy, trainable_share


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
    count = len(task.weights)
    Lora(rank=2).prepare(task)  # a second fit goes on with the updates that are there
    assert len(task.weights) == count
