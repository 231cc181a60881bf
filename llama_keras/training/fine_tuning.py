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


@dataclass(frozen=True)
class DepthRates:
    """How fast weights learn at each depth, see `training.optimizers`."""

    shares: list[float]
    """Factors of the learning rate."""
    starts: list[int]
    """Steps from which they learn."""


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """A way to fine-tune a task by gradients."""

    name: ClassVar[str]
    learning_rate: float

    def prepare(self, task: Trainable) -> None:
        """Freezes and adds weights before the first step."""

    def depth_rates(self, num_layers: int, total_steps: int) -> DepthRates | None:
        """Gives rates that differ by depth; None where they do not."""
        return None


@dataclass(frozen=True, kw_only=True)
class Full(Strategy):
    """All weights learn.

    Attributes:
        learning_rate: peak of the schedule.
    """

    name: ClassVar[str] = "full"
    learning_rate: float = 3e-5

    def prepare(self, task: Trainable) -> None:
        """Makes all weights of the backbone trainable."""
        _unfreeze(task.backbone)


@dataclass(frozen=True, kw_only=True)
class Lora(Strategy):
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
class LinearProbe(Strategy):
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


@dataclass(frozen=True, kw_only=True)
class TopLayers(Strategy):
    """The last blocks, the final norm and the head learn; what lies below stays as it is.

    Attributes:
        layers: number of blocks that learn.
        learning_rate: peak of the schedule.
    """

    name: ClassVar[str] = "top_layers"
    layers: int = 4
    learning_rate: float = 1e-4

    def prepare(self, task: Trainable) -> None:
        """Freezes the embeddings and the lower blocks."""
        blocks = task.backbone.transformer_layers
        if not 0 < self.layers <= len(blocks):
            raise InputError(
                f"top_layers can train 1 … {len(blocks)} blocks of this model; received "
                f"layers={self.layers}."
            )
        _unfreeze(task.backbone)
        _freeze_embeddings(task.backbone)
        for block in blocks[: -self.layers]:
            block.trainable = False


@dataclass(frozen=True, kw_only=True)
class LayerwiseDecay(Strategy):
    """All weights learn, each block more slowly than the one above it (arXiv 2006.05987).

    Attributes:
        decay: what the rate is multiplied with from block to block, downwards.
        learning_rate: peak of the schedule, for the head.
    """

    name: ClassVar[str] = "layerwise_lr_decay"
    decay: float = 0.9
    learning_rate: float = 1e-4

    def prepare(self, task: Trainable) -> None:
        """Makes all weights of the backbone trainable."""
        _unfreeze(task.backbone)

    def depth_rates(self, num_layers: int, total_steps: int) -> DepthRates:
        """Gives rates that fall from the head to the embeddings."""
        depths = range(num_layers + 2)
        return DepthRates(
            [self.decay ** (num_layers + 1 - depth) for depth in depths], [0] * len(depths)
        )


@dataclass(frozen=True, kw_only=True)
class GradualUnfreezing(Strategy):
    """The head learns first, then one block after the other joins in, from the top (ULMFiT).

    Source: arXiv 1801.06146, where a block joins each epoch; here they join at even steps, so that
    one epoch is enough.

    Attributes:
        complete_at: share of all steps after which every weight learns.
        learning_rate: peak of the schedule.
    """

    name: ClassVar[str] = "gradual_unfreezing"
    complete_at: float = 0.5
    learning_rate: float = 5e-5

    def prepare(self, task: Trainable) -> None:
        """Makes all weights of the backbone trainable."""
        _unfreeze(task.backbone)

    def depth_rates(self, num_layers: int, total_steps: int) -> DepthRates:
        """Gives the steps at which each depth joins in; the head at once."""
        step = self.complete_at * total_steps / (num_layers + 1)
        starts = [round(step * (num_layers + 1 - depth)) for depth in range(num_layers + 2)]
        return DepthRates([1.0] * len(starts), starts)


@dataclass(frozen=True, kw_only=True)
class BitFit(Strategy):
    """Only biases, the scales of norms and the head learn (arXiv 2106.10199).

    Llamas have no biases but in some checkpoints; their norms take the part.

    Attributes:
        learning_rate: peak of the schedule.
    """

    name: ClassVar[str] = "bitfit"
    learning_rate: float = 3e-3

    def prepare(self, task: Trainable) -> None:
        """Freezes all matrices of the backbone."""
        _unfreeze(task.backbone)
        for variable in task.backbone.variables:
            variable.trainable = len(variable.shape) < 2


def _unfreeze(backbone) -> None:
    # Setting what is set already does nothing, not even to the layers within: LoRA leaves blocks
    # trainable whose kernels are not.
    for layer in backbone._flatten_layers():
        layer.trainable = False
        layer.trainable = True


def _freeze_embeddings(backbone) -> None:
    for layer in (backbone.token_embedding, getattr(backbone, "position_embedding", None)):
        if layer is not None:
            layer.trainable = False


STRATEGIES = {
    strategy.name: strategy
    for strategy in (
        Full,
        LinearProbe,
        Lora,
        TopLayers,
        LayerwiseDecay,
        GradualUnfreezing,
        BitFit,
    )
}


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
    known = [field.name for field in dataclasses.fields(STRATEGIES[name])]
    if unknown := set(fields) - set(known):
        raise InputError(f"Strategy {name} has no setting {sorted(unknown)}; it has {known}.")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return STRATEGIES[name](**values)


def strategy_config(strategy) -> dict[str, Any]:
    """Gives a strategy's name and settings as plain values."""
    settings = dataclasses.asdict(strategy)
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}
    return {"name": strategy.name, **plain}


def trainable_share(task: Trainable) -> str:
    """Says how many of a task's weights learn, for people to read."""

    def count(weights):
        return sum(int(np.prod(weight.shape)) for weight in weights)

    learning, total = count(task.trainable_weights), count(task.weights)
    percent = 100 * learning / total
    share = "under 0.01" if 0 < percent < 0.01 else f"{percent:.2f}"
    return f"{learning:,} of {total:,} weights learn ({share} %)"
