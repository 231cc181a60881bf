"""One training run on paper: memory, operations, communication, time, tokens/s, MFU."""

import dataclasses
from dataclasses import dataclass

from llama_keras.errors import InputError
from llama_keras.planning.communication import Communication, communication_of
from llama_keras.planning.compute import Flops, flops_of
from llama_keras.planning.devices import Device, device_of
from llama_keras.planning.memory import Memory, block_bytes, memory_of
from llama_keras.planning.settings import Settings
from llama_keras.planning.shapes import Shape, parameter_count, shape_of, weights_of

# Assumed: the share of the memory's rate that steps reach, and of the memory that can be filled.
BANDWIDTH_SHARE = 0.8
USABLE = 0.92
# How often each kept activation passes through memory: written, read by the next operation, read
# in the backward pass, and its gradient.
PASSES = 4


@dataclass(frozen=True, kw_only=True)
class Time:
    """Seconds of one step on one device.

    Attributes:
        products: matrix products at the share of the peak that they reach.
        traffic: activations, kernels and the optimizer's update through memory.
        waiting: communication that nothing hides.
    """

    products: float
    traffic: float
    waiting: float

    @property
    def step(self) -> float:
        """All of them."""
        return self.products + self.traffic + self.waiting


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run needs and how fast it is expected to be."""

    shape: Shape
    device: Device
    settings: Settings
    memory: Memory
    flops: Flops
    communication: Communication
    time: Time

    @property
    def parameters(self) -> int:
        """Weights of the model, LoRA's not counted."""
        return parameter_count(self.shape)

    @property
    def learned(self) -> int:
        """Weights that learn."""
        weights = weights_of(self.shape, lora_rank=self.settings.lora_rank)
        return sum(weight.count for weight in weights if weight.learned)

    @property
    def usable(self) -> float:
        """Bytes of a device that can be filled."""
        return USABLE * self.device.memory

    @property
    def fits(self) -> bool:
        """Whether the most bytes at one time have room."""
        return self.memory.peak <= self.usable

    @property
    def step_flops(self) -> float:
        """What a step needs over all devices, the numerator of MFU."""
        return self.flops.model * self.settings.step_tokens

    @property
    def tokens_per_second(self) -> float:
        """Over all devices."""
        return self.settings.step_tokens / self.time.step

    @property
    def mfu(self) -> float:
        """Share of all devices' peak that goes into what the step needs."""
        peak = self.device.peak[self.settings.product_dtype] * self.settings.devices
        return self.step_flops / self.time.step / peak

    def seconds_for(self, tokens: float) -> float:
        """Gives the time of training on so many tokens."""
        return tokens / self.tokens_per_second

    def to_dict(self, *, tokens: float | None = None) -> dict:
        """Gives all numbers as plain values: bytes, seconds, operations."""
        device = {"name": self.device.name, "sources": list(self.device.sources)}
        return {
            "shape": dataclasses.asdict(self.shape),
            "device": device,
            "settings": dataclasses.asdict(self.settings),
            "parameters": self.parameters,
            "learned_parameters": self.learned,
            "memory": {
                **dataclasses.asdict(self.memory),
                "peak": self.memory.peak,
                "usable": self.usable,
                "fits": self.fits,
            },
            "flops": {**dataclasses.asdict(self.flops), "step": self.step_flops},
            "communication": dataclasses.asdict(self.communication),
            "seconds": {**dataclasses.asdict(self.time), "step": self.time.step},
            "tokens_per_second": self.tokens_per_second,
            "mfu": self.mfu,
            "training_seconds": None if tokens is None else self.seconds_for(tokens),
        }


def plan(preset: str | Shape, *, device: str | Device = "h100", **settings) -> Plan:
    """Gives the plan of a training run.

    Args:
        preset: a name or path that `shapes.shape_of` takes, or a `Shape`.
        device: a name of `devices.DEVICES`, or a `Device`.
        **settings: see `Settings`.

    Raises:
        InputError: something of it is not known or does not go together.
    """
    shape = preset if isinstance(preset, Shape) else shape_of(preset)
    device = device if isinstance(device, Device) else device_of(device)
    asked = Settings(**settings)
    _check_dtype(device, asked)
    flops = flops_of(shape, asked)
    memory = memory_of(shape, asked)
    communication = communication_of(shape, asked, device=device)
    return Plan(
        shape=shape,
        device=device,
        settings=asked,
        memory=memory,
        flops=flops,
        communication=communication,
        time=_time(shape, asked, device, flops, memory, communication),
    )


def _time(shape, settings, device, flops, memory, communication) -> Time:
    # A device computes its padding rows, too; what one computes, its model devices share.
    computed = flops.computed * settings.tokens * settings.micro_batches / settings.model_devices
    rate = device.peak[settings.product_dtype] * device.product_share
    products = computed / rate
    traffic = _traffic(shape, settings, memory) / (device.bandwidth * BANDWIDTH_SHARE)
    data = communication.data_seconds
    if settings.overlap:
        # Gradients travel while earlier blocks compute theirs, gathered weights one block ahead;
        # a block's worth has nothing to hide behind.
        hidden = (products + traffic) * (1 if settings.zero_devices > 1 else 2 / 3)
        data = max(data / shape.num_layers, data - hidden)
    return Time(products=products, traffic=traffic, waiting=data + communication.model_seconds)


def _traffic(shape: Shape, settings: Settings, memory: Memory) -> float:
    """Gives the bytes that a device moves through its memory in a step, beside its products'."""
    blocks = shape.num_layers * block_bytes(shape, settings) * (1.5 if settings.remat else 1)
    moving = PASSES * (blocks + memory.logits) * settings.micro_batches
    # The update reads gradients and reads and writes weights and moments.
    learned = memory.gradients
    return moving + 2 * (learned + memory.optimizer) + learned


def _check_dtype(device: Device, settings: Settings) -> None:
    if settings.product_dtype not in device.peak:
        raise InputError(
            f"device {device.name!r} has no rate for {settings.product_dtype}, which "
            f"dtype={settings.dtype!r} computes in; it has {', '.join(device.peak)}."
        )
