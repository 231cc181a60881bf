"""Bytes on each device during a training step.

What a block keeps for its backward pass is what XLA keeps of this project's blocks: read from
`memory_analysis()` of compiled steps by varying one size at a time (float32, the CPU compiler's
memory-first schedule; `tests/planning/test_xla.py`).
"""

from dataclasses import dataclass
from math import prod

from llama_keras.planning.optimizers import slot_count
from llama_keras.planning.settings import Settings
from llama_keras.planning.shapes import Shape, Weight, weights_of

FLOAT32 = 4
# Numbers that a block keeps for each token, by dimension.
KEPT = {"E": 4, "Q": 2, "K": 2}
KEPT_OF_FEED_FORWARD = {"swiglu": 4, "mlp": 2}
# float32 numbers of each head and place: the scores' exponentials and the weights; and of each
# head alone: the softmax's maximum, sum and scale.
KEPT_SCORES, KEPT_OF_SOFTMAX = 2, 3
# float32 numbers for each logit that exists: it, its exponential, its gradient.
KEPT_LOGITS = 3


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one device.

    Attributes:
        weights: as they are stored.
        optimizer: moments.
        copies: kernels as products take them: cast, or gathered from other devices.
        gradients: all at once, as clipping by the global norm needs them.
        activations: kept for the backward pass, without what belongs to the logits.
        logits: and what belongs to them.
        accumulated: gradients of earlier micro-batches.
    """

    weights: float
    optimizer: float
    copies: float
    gradients: float
    activations: float
    logits: float
    accumulated: float

    @property
    def state(self) -> float:
        """What stays from step to step."""
        return self.weights + self.optimizer

    @property
    def peak(self) -> float:
        """The most at one time: activations go as gradients come."""
        passing = max(self.activations + self.logits, self.gradients)
        return self.state + self.copies + self.accumulated + passing


def memory_of(shape: Shape, settings: Settings) -> Memory:
    """Gives the bytes on each device."""
    weights = weights_of(shape, lora_rank=settings.lora_rank)
    size = settings.weight_bytes
    gradients = size * sum(settings.share(w, shape) * w.count for w in weights if w.learned)
    slots = sum(settings.share(w, shape) * slot_count(w, settings.optimizer) for w in weights)
    return Memory(
        weights=size * sum(settings.share(w, shape) * w.count for w in weights),
        optimizer=size * slots,
        copies=copies_bytes(weights, shape, settings),
        gradients=gradients,
        activations=activation_bytes(shape, settings),
        logits=logit_bytes(shape, settings),
        accumulated=gradients if settings.micro_batches > 1 else 0.0,
    )


def copies_bytes(weights: list[Weight], shape: Shape, settings: Settings) -> float:
    """Gives the bytes of kernels as products take them."""
    kernels = [w for w in weights if len(w.shape) == 2 and w.part in ("block", "head")]
    size = settings.compute_bytes
    if settings.zero_devices > 1:
        # The block that computes and the one that is on its way; the head by itself.
        whole = [prod(w.shape) * (2 if w.part == "block" else 1) for w in kernels]
        return size * sum(whole) / settings.model_devices
    if size == settings.weight_bytes:
        return 0.0
    return size * sum(settings.share(w, shape) * w.count for w in kernels)


def block_bytes(shape: Shape, settings: Settings) -> float:
    """Gives the bytes that one block keeps for the backward pass."""
    over, size = settings.model_devices, settings.compute_bytes
    heads, length = shape.num_query_heads / over, settings.sequence_length
    numbers = KEPT["E"] * shape.size("E")
    numbers += sum(KEPT[letter] * shape.size(letter) for letter in "QK") / over
    numbers += KEPT_OF_FEED_FORWARD[shape.feed_forward] * shape.size("F") / over
    softmax = KEPT_OF_SOFTMAX * heads * FLOAT32
    if settings.attention == "scores":
        softmax += KEPT_SCORES * heads * length * FLOAT32
        if size != FLOAT32:
            softmax += heads * length * size  # the weights once more, cast
    return settings.tokens * (size * numbers + softmax)


def activation_bytes(shape: Shape, settings: Settings) -> float:
    """Gives the bytes that all blocks keep for the backward pass."""
    block = block_bytes(shape, settings)
    if not settings.remat:
        return shape.num_layers * block
    # Each block's input, and the block whose backward pass runs.
    inputs = settings.tokens * shape.size("E") * settings.compute_bytes
    return shape.num_layers * inputs + block


def logit_bytes(shape: Shape, settings: Settings) -> float:
    """Gives the bytes that the head and the loss need."""
    over, size = settings.model_devices, settings.compute_bytes
    vocabulary, width = shape.vocabulary_size / over, shape.size("E")
    around = settings.tokens * KEPT["E"] * width * size  # embedding, final norm, their gradients
    if settings.logits == "whole":
        cast = 0 if size == FLOAT32 else size
        return around + settings.tokens * vocabulary * (KEPT_LOGITS * FLOAT32 + cast)
    chunk = min(settings.chunk, settings.tokens)
    # In float32: the chunk's logits; the gradients of hidden states and of the head, summed up.
    sums = settings.tokens * width + (0 if settings.lora_rank else vocabulary * width)
    return around + FLOAT32 * (KEPT_LOGITS * chunk * vocabulary + sums)
