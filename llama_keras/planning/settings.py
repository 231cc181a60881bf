"""What a training run is asked to do, checked."""

from dataclasses import dataclass
from math import ceil
from typing import Literal

from llama_keras.errors import InputError
from llama_keras.planning.optimizers import SLOTS
from llama_keras.planning.shapes import Shape, Weight

# dtype policy -> bytes of a weight, bytes of what is computed, the dtype that products run in
POLICIES: dict[str, tuple[int, int, str]] = {
    "float32": (4, 4, "float32"),
    "mixed_bfloat16": (4, 2, "bfloat16"),
    "mixed_float16": (4, 2, "float16"),
    "bfloat16": (2, 2, "bfloat16"),
}
STRATEGIES = {
    "data": "every device has all weights and a part of the batch (DataParallel, mirrored)",
    "zero": "as data, but weights, gradients and moments lie in parts on the devices (ZeRO-3)",
    "model": "each product is split over the devices (Megatron); the rest of them as zero",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A training run of a causal language model.

    Attributes:
        devices: how many.
        batch_size: rows of a step, over all devices.
        sequence_length: tokens of a row.
        strategy: a name of `STRATEGIES`.
        model_parallel: devices that split each product, with `"model"`; by default all.
        dtype: a Keras dtype policy, a name of `POLICIES`.
        optimizer: a name of `optimizers.SLOTS`.
        lora_rank: of the updates that learn alone; None where all weights learn.
        remat: whether the activations of each block are computed anew in the backward pass.
        logits: `"chunked"` (`objectives.cross_entropy`) or `"whole"`.
        chunk: tokens whose logits exist together, where they are chunked.
        attention: `"scores"`, `(B, H, T, T)` in memory as `LlamaAttention` has them, or `"fused"`,
            a kernel that keeps none (FlashAttention, arXiv 2205.14135).
        micro_batches: parts of a step's batch that are computed one after the other.
        overlap: whether gradients and weights travel while products are computed.
    """

    devices: int = 1
    batch_size: int = 8
    sequence_length: int = 1024
    strategy: str = "data"
    model_parallel: int | None = None
    dtype: str = "mixed_bfloat16"
    optimizer: str = "adamw"
    lora_rank: int | None = None
    remat: bool = False
    logits: Literal["chunked", "whole"] = "chunked"
    chunk: int = 256
    attention: Literal["scores", "fused"] = "scores"
    micro_batches: int = 1
    overlap: bool = True

    def __post_init__(self):
        for name in ("devices", "batch_size", "sequence_length", "chunk", "micro_batches"):
            _check_size(name, getattr(self, name))
        for name in ("model_parallel", "lora_rank"):
            if getattr(self, name) is not None:
                _check_size(name, getattr(self, name))
        for name, known in (
            ("strategy", STRATEGIES),
            ("dtype", POLICIES),
            ("optimizer", SLOTS),
            ("logits", ("chunked", "whole")),
            ("attention", ("scores", "fused")),
        ):
            if getattr(self, name) not in known:
                raise InputError(
                    f"{name}={getattr(self, name)!r} is not known; expected one of {list(known)}."
                )
        if self.model_parallel and self.strategy != "model":
            raise InputError("model_parallel acts only with strategy='model'.")
        if self.devices % self.model_devices:
            raise InputError(
                f"model_parallel={self.model_parallel} does not divide devices={self.devices}."
            )

    @property
    def model_devices(self) -> int:
        """Devices that split each product."""
        return (self.model_parallel or self.devices) if self.strategy == "model" else 1

    @property
    def data_devices(self) -> int:
        """Devices, or groups of them, that split the batch."""
        return self.devices // self.model_devices

    @property
    def zero_devices(self) -> int:
        """Groups among which the weights lie in parts beside `model_devices`."""
        return 1 if self.strategy == "data" else self.data_devices

    @property
    def rows(self) -> int:
        """Rows that a device computes at a time, padding rows counted."""
        return ceil(ceil(self.batch_size / self.data_devices) / self.micro_batches)

    @property
    def tokens(self) -> int:
        """Tokens that a device computes at a time."""
        return self.rows * self.sequence_length

    @property
    def step_tokens(self) -> int:
        """Tokens of a step that count, over all devices."""
        return self.batch_size * self.sequence_length

    @property
    def weight_bytes(self) -> int:
        """Of one number of a weight, a gradient or a moment."""
        return POLICIES[self.dtype][0]

    @property
    def compute_bytes(self) -> int:
        """Of one number of an activation."""
        return POLICIES[self.dtype][1]

    @property
    def product_dtype(self) -> str:
        """What matrix products run in."""
        return POLICIES[self.dtype][2]

    def share(self, weight: Weight, shape: Shape) -> float:
        """Gives the part of a weight that lies on one device.

        As `models.layout` splits them: heads, feed-forward network and vocabulary over the model
        devices, the model's width over the others; what does not divide, and norms, lie whole.
        """
        part = 1.0
        for letter in weight.dimensions if len(weight.shape) == 2 else "":
            over = self.model_devices if letter in "VQKF" else 1
            over = self.zero_devices if letter == "E" else over
            if over > 1 and shape.pieces(letter) % over == 0:
                part /= over
        return part


def _check_size(name: str, value) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} must be a positive integer; received {value!r}.")
