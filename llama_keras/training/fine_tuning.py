"""Which weights of a task learn, and how: the article's fine-tuning strategies as small objects."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from llama_keras.errors import InputError


class Trainable(Protocol):
    """What a strategy needs of a task."""

    backbone: Any

    @property
    def weights(self) -> list:
        """All Keras variables."""
        ...

    @property
    def trainable_weights(self) -> list:
        """Those that learn."""
        ...


class Strategy(Protocol):
    """A way to fine-tune a task by gradients."""

    name: ClassVar[str]
    learning_rate: float

    def prepare(self, task: Trainable) -> None:
        """Freezes and adds weights before the first step."""


@dataclass(frozen=True, kw_only=True)
class Full:
    """All weights learn.

    Attributes:
        learning_rate: peak of the schedule.
    """

    name: ClassVar[str] = "full"
    learning_rate: float = 3e-5

    def prepare(self, task: Trainable) -> None:
        """Makes all weights of the backbone trainable."""
        task.backbone.trainable = True


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank updates of some projections learn, beside the head (arXiv 2106.09685).

    Attributes:
        rank: of the updates.
        targets: names of the projections that get one.
        learning_rate: peak of the schedule.
    """

    name: ClassVar[str] = "lora"
    rank: int = 8
    targets: tuple[str, ...] = (
        "query_dense",
        "key_dense",
        "value_dense",
        "output_dense",
        "gate_dense",
        "up_dense",
        "down_dense",
    )
    learning_rate: float = 5e-4

    def prepare(self, task: Trainable) -> None:
        """Freezes the backbone and adds the updates, once."""
        if not getattr(task.backbone, "_lora_enabled_layers", None):
            task.backbone.enable_lora(self.rank, target_layer_names=list(self.targets))


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """Only the head learns, from features that are computed once.

    The features come from the layer that the validation set prefers (for SmolLM2-135M an inner
    one is both better and cheaper than the last); the backbone is then cut after that layer.
    The head is a logistic regression on standardized features, solved to the optimum.

    Attributes:
        layer: number of blocks to keep; `None` lets the validation set choose.
        penalties: values of scikit-learn's `C` among which the validation set chooses.
        learning_rate: unused; there are no gradient steps.
    """

    name: ClassVar[str] = "linear_probe"
    layer: int | None = None
    penalties: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0)
    learning_rate: float = 0.0

    def prepare(self, task: Trainable) -> None:
        """Freezes the backbone."""
        task.backbone.trainable = False


STRATEGIES = {strategy.name: strategy for strategy in (Full, LinearProbe, Lora)}


def get_strategy(strategy: str | dict[str, Any] | Strategy) -> Any:
    """Gives the strategy of a name or of `strategy_config`, or the given one.

    Raises:
        InputError: there is none of that name.
    """
    if not isinstance(strategy, (str, dict)):
        return strategy
    fields = {"name": strategy} if isinstance(strategy, str) else dict(strategy)
    name = fields.pop("name")
    if name not in STRATEGIES:
        raise InputError(f"strategy={name!r} is not known; expected one of {list(STRATEGIES)}.")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return STRATEGIES[name](**values)


def strategy_config(strategy) -> dict[str, Any]:
    """Gives a strategy's name and settings as plain values."""
    return {"name": strategy.name, **dataclasses.asdict(strategy)}


def trainable_share(task: Trainable) -> str:
    """Says how many of a task's weights learn, for people to read."""

    def count(weights):
        return sum(int(np.prod(weight.shape)) for weight in weights)

    learning, total = count(task.trainable_weights), count(task.weights)
    return f"{learning:,} of {total:,} weights learn ({100 * learning / total:.2f} %)"
