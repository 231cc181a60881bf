"""How many numbers Keras's optimizers keep for each weight."""

from collections.abc import Callable
from math import prod

from llama_keras.planning.shapes import Weight


def _times(slots: int) -> Callable[[Weight], int]:
    return lambda weight: slots * prod(weight.shape)


def _adafactor(weight: Weight) -> int:
    shape = weight.shape
    factors = sum(shape) if len(shape) == 2 else 0
    # Keras keeps a whole second moment beside the factors, though it never reads it.
    return prod(shape) + factors


def _muon(weight: Weight) -> int:
    by_muon = len(weight.shape) == 2 and "embedding" not in weight.name
    return (1 if by_muon else 2) * prod(weight.shape)


# optimizer -> numbers for one copy of a weight, in the weight's dtype (Keras 3.15)
SLOTS: dict[str, Callable[[Weight], int]] = {
    "sgd": _times(0),
    "momentum": _times(1),  # SGD(momentum=0.9)
    "lion": _times(1),
    "adam": _times(2),
    "adamw": _times(2),
    "lamb": _times(2),
    "adafactor": _adafactor,
    "muon": _muon,
}


def slot_count(weight: Weight, optimizer: str) -> int:
    """Gives the numbers that an optimizer keeps for a weight, over all layers; 0 if frozen."""
    return weight.copies * SLOTS[optimizer](weight) if weight.learned else 0
