"""Bytes that travel between devices in a training step, and the seconds that they take.

Rings: an all-reduce of n bytes sends 2 (d - 1) / d n out of each of d devices, an all-gather or a
reduce-scatter half of that. Over several islands the parts are reduced within an island first and
each device carries its part across. No start-up time of messages is counted.
"""

from dataclasses import dataclass
from math import ceil

from llama_keras.planning.devices import Device
from llama_keras.planning.settings import Settings
from llama_keras.planning.shapes import Shape, weights_of


@dataclass(frozen=True, kw_only=True)
class Communication:
    """What one device sends in a step.

    Attributes:
        gradient_bytes: gradients among the data devices.
        gathered_bytes: weights that lie in parts, gathered for both passes.
        activation_bytes: sums of split products among the model devices.
        data_seconds: for the first two, which can travel while products are computed.
        model_seconds: for the third, which the next product waits for.
    """

    gradient_bytes: float
    gathered_bytes: float
    activation_bytes: float
    data_seconds: float
    model_seconds: float

    @property
    def sent(self) -> float:
        """All bytes that one device sends."""
        return self.gradient_bytes + self.gathered_bytes + self.activation_bytes


def sent(size: float, devices: int, *, passes: int) -> float:
    """Gives the bytes that each device sends: 1 pass gathers or scatters, 2 reduce for all."""
    return passes * size * (devices - 1) / devices


def seconds(size: float, devices: int, *, passes: int, device: Device, stride: int = 1) -> float:
    """Gives the time of a collective.

    Args:
        size: bytes of the whole buffer.
        devices: that take part.
        passes: see `sent`.
        device: their kind.
        stride: devices of an island that belong to each participant, which leaves the fewer of
            them to an island.
    """
    inner = max(min(devices, device.island // stride), 1)
    outer = ceil(devices / inner)
    within = sent(size, inner, passes=passes) / device.link_rate(inner * stride)
    return within + sent(size / inner, outer, passes=passes) / device.across


def communication_of(shape: Shape, settings: Settings, *, device: Device) -> Communication:
    """Gives what travels in a step of a run."""
    weights = weights_of(shape, lora_rank=settings.lora_rank)
    over, groups = settings.model_devices, settings.data_devices
    gradients = settings.weight_bytes * sum(w.count for w in weights if w.learned) / over
    gathered, reduce_passes = 0.0, 2
    if settings.zero_devices > 1:
        # Once forward, once backward, for each micro-batch; gradients end where their weight lies.
        kernels = sum(w.count for w in weights if len(w.shape) == 2)
        gathered = settings.compute_bytes * kernels / over * 2 * settings.micro_batches
        reduce_passes = 1

    def time(size: float, passes: int) -> float:
        return seconds(size, groups, passes=passes, device=device, stride=over)

    sums = settings.micro_batches * _sums(shape, settings)
    return Communication(
        gradient_bytes=sent(gradients, groups, passes=reduce_passes),
        gathered_bytes=sent(gathered, groups, passes=1),
        activation_bytes=sent(sums, over, passes=2),
        data_seconds=time(gradients, reduce_passes) + time(gathered, 1),
        model_seconds=seconds(sums, over, passes=2, device=device),
    )


def _sums(shape: Shape, settings: Settings) -> float:
    """Gives the bytes that the model devices add up in one micro-batch."""
    if settings.model_devices == 1:
        return 0.0
    hidden = settings.tokens * shape.size("E") * settings.compute_bytes
    # Behind attention and feed-forward network forward, before both backward (Megatron-LM, arXiv
    # 1909.08053), both again where blocks are computed anew; the embedding, the head's gradient.
    of_block = 2 + 2 + (2 if settings.remat else 0)
    return hidden * (of_block * shape.num_layers + 2)
