"""Which weights of a task learn, and how: the article's fine-tuning strategies as small objects."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
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
    """A way to fine-tune a task by gradients.

    Raises:
        InputError: a setting is of the wrong type or out of its range.
    """

    name: ClassVar[str]
    learning_rate: float

    def __post_init__(self):
        self._check("learning_rate", Real, lambda rate: 0 < rate < math.inf, "a positive number")

    def _check(self, setting: str, kind: type, fits: Callable[[Any], bool], expected: str) -> None:
        value = getattr(self, setting)
        if isinstance(value, bool) or not isinstance(value, kind) or not fits(value):
            raise InputError(f"{self.name} takes {expected} for {setting}; received {value!r}.")

    def _check_tuple(self, setting: str, kind: type, fits: Callable, expected: str) -> None:
        value = getattr(self, setting)
        items = tuple(value) if isinstance(value, (list, tuple)) else ()
        if not items or not all(isinstance(item, kind) and fits(item) for item in items):
            raise InputError(f"{self.name} takes {expected} for {setting}; received {value!r}.")
        object.__setattr__(self, setting, items)  # a list becomes the tuple that it stands for

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
        targets: names of the projections that get one; by default all that the model has.
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

    def __post_init__(self):
        super().__post_init__()
        self._check("rank", Integral, lambda rank: rank >= 1, "an integer of 1 or more")
        self._check_tuple("targets", str, bool, "one or more names of layers")

    def prepare(self, task: Trainable) -> None:
        """Freezes the backbone and adds the updates, once.

        Raises:
            InputError: the backbone has no layer of the name of a target.
        """
        if not getattr(task.backbone, "_lora_enabled_layers", None):
            self._check_targets(task.backbone)
            task.backbone.enable_lora(self.rank, target_layer_names=list(self.targets))

    def _check_targets(self, backbone) -> None:
        layers = [layer for layer in backbone._flatten_layers(include_self=False) if layer.weights]
        known = dict.fromkeys(layer.name for layer in layers if hasattr(layer, "enable_lora"))
        missing = [name for name in self.targets if name not in known]
        # The default names every projection there may be; an MLP has no gate.
        if missing and self.targets != Lora.targets:
            raise InputError(
                f"lora finds no layer named {', '.join(missing)} in this model; targets can be "
                f"{list(known)}."
            )


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

    def __post_init__(self):
        self._check("learning_rate", Real, lambda rate: 0 <= rate < math.inf, "a number")
        if self.layer is not None:
            self._check("layer", Integral, lambda layer: layer >= 1, "an integer of 1 or more")
        self._check_tuple("penalties", Real, lambda c: 0 < c < math.inf, "positive numbers")

    def prepare(self, task: Trainable) -> None:
        """Freezes the backbone."""
        count = len(task.backbone.transformer_layers)
        if self.layer is not None and self.layer > count:
            raise InputError(
                f"linear_probe can keep 1 … {count} blocks of this model; received "
                f"layer={self.layer}."
            )
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

    def __post_init__(self):
        super().__post_init__()
        self._check("layers", Integral, lambda layers: layers >= 1, "an integer of 1 or more")

    def prepare(self, task: Trainable) -> None:
        """Freezes the embeddings and the lower blocks."""
        blocks = task.backbone.transformer_layers
        if self.layers > len(blocks):
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

    def __post_init__(self):
        super().__post_init__()
        self._check("decay", Real, _is_share, "a number above 0 and up to 1")

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

    def __post_init__(self):
        super().__post_init__()
        self._check("complete_at", Real, _is_share, "a number above 0 and up to 1")

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


def _is_share(value) -> bool:
    return 0 < value <= 1


def _unfreeze(backbone) -> None:
    # Setting what is set already does nothing, not even to the layers within: LoRA leaves blocks
    # trainable whose kernels are not.
    for layer in backbone._flatten_layers():
        layer.trainable = False
        layer.trainable = True


def _freeze_embeddings(backbone) -> None:
    for layer in (backbone.token_embedding, getattr(backbone, "position_embedding", None)):
        for variable in [] if layer is None else layer.variables:
            # An untied output matrix is the head, though the layer of the embeddings holds it.
            if not is_output(variable.path):
                variable.trainable = False


def is_output(path: str) -> bool:
    """Says whether a variable is the output matrix of a model that does not tie it."""
    return path.endswith("token_embedding/reverse_embeddings")


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
        InputError: there is none of that name, or a setting is not one that it takes.
    """
    if all(hasattr(strategy, name) for name in ("name", "prepare", "depth_rates")):
        return strategy
    if not isinstance(strategy, (str, dict)):
        raise InputError(
            f"strategy={strategy!r:.80} is neither a name of {list(STRATEGIES)} nor an object of "
            "training.fine_tuning."
        )
    fields: dict[str, Any] = {"name": strategy} if isinstance(strategy, str) else dict(strategy)
    name = fields.pop("name")
    if name not in STRATEGIES:
        raise InputError(f"strategy={name!r} is not known; expected one of {list(STRATEGIES)}.")
    known = [field.name for field in dataclasses.fields(STRATEGIES[name])]
    if unknown := set(fields) - set(known):
        raise InputError(f"Strategy {name} has no setting {sorted(unknown)}; it has {known}.")
    return STRATEGIES[name](**fields)


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
