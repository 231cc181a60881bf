"""What devices can do, each number with its source.

Rates are per device: FLOP/s without sparsity, bytes/s, bytes (a GB is 10⁹ bytes).
"""

from dataclasses import dataclass

from llama_keras.errors import InputError

GB, TERA = 1e9, 1e12


@dataclass(frozen=True, kw_only=True)
class Device:
    """One kind of device and how it is joined to others.

    Attributes:
        name: of the row.
        peak: FLOP/s of matrix products by compute dtype.
        memory: bytes.
        bandwidth: bytes/s between memory and compute.
        link: bytes/s out of one device to its island, one way.
        island: devices that are joined by `link`.
        across: bytes/s out of one device to other islands, one way.
        wraps_from: devices from which the links close to rings; with fewer, half of them carry.
        product_share: share of the peak that a step's matrix products reach.
        sources: where each number is from.
    """

    name: str
    peak: dict[str, float]
    memory: float
    bandwidth: float
    link: float
    island: int
    across: float
    product_share: float
    sources: tuple[str, ...]
    wraps_from: int = 1

    def link_rate(self, devices: int) -> float:
        """Gives the bytes/s of the links among so many devices of an island."""
        return self.link if devices >= self.wraps_from else self.link / 2


_FITTED_H100 = (
    "product_share fitted: MaxText, Llama 2 7B on 8 x H100, 492 TFLOP/s a device "
    "(github.com/AI-Hypercomputer/maxtext, MaxText/configs/a3/llama_2_7b)"
)
_FITTED_V5E = (
    "product_share fitted: MaxText, 16B on 256 x v5e, 120 TFLOP/s a device "
    "(github.com/AI-Hypercomputer/maxtext, MaxText/configs/v5e)"
)
_HOSTS = (
    "across: 400 Gbit/s of network a GPU (github.com/pytorch/torchtitan, "
    "benchmarks/llama3_h100_202412_torchtitan.md)"
)

DEVICES: dict[str, Device] = {
    device.name: device
    for device in (
        Device(
            name="h100",
            peak={"bfloat16": 989 * TERA, "float16": 989 * TERA, "float32": 494 * TERA},
            memory=80 * GB,
            bandwidth=3350 * GB,
            link=450 * GB,
            island=8,
            across=50 * GB,
            product_share=0.56,
            sources=(
                "NVIDIA H100 data sheet, SXM: 989 TFLOP/s dense bfloat16, 494 TF32 (what float32 "
                "products run in), 80 GB, 3.35 TB/s, NVLink 900 GB/s both ways together",
                _HOSTS,
                _FITTED_H100,
            ),
        ),
        Device(
            name="h200",
            peak={"bfloat16": 989 * TERA, "float16": 989 * TERA, "float32": 494 * TERA},
            memory=141 * GB,
            bandwidth=4800 * GB,
            link=450 * GB,
            island=8,
            across=50 * GB,
            product_share=0.56,
            sources=(
                "NVIDIA H200 data sheet, SXM: as H100 but 141 GB, 4.8 TB/s",
                _HOSTS,
                "product_share: as h100, not fitted",
            ),
        ),
        Device(
            name="v5e",
            peak={"bfloat16": 197 * TERA, "float32": 197 * TERA},
            memory=16 * GB,
            bandwidth=819 * GB,
            link=200 * GB,
            island=256,
            across=6400 / 8 / 256 * GB,
            wraps_from=256,
            product_share=0.9,
            sources=(
                "cloud.google.com/tpu/docs/v5e: 197 TFLOP/s bfloat16 (float32 products run in "
                "bfloat16 by default), 16 GB, 819 GB/s, 1600 Gbit/s of links a chip, pods of 256, "
                "6.4 Tbit/s of network a pod",
                "wraps_from: assumed, axes of 16 chips close to rings and shorter ones do not",
                _FITTED_V5E,
            ),
        ),
        Device(
            name="v5p",
            peak={"bfloat16": 459 * TERA, "float32": 459 * TERA},
            memory=95 * GB,
            bandwidth=2765 * GB,
            link=600 * GB,
            island=8960,
            across=50 / 8 * GB,
            wraps_from=64,
            product_share=0.9,
            sources=(
                "docs.cloud.google.com/tpu/docs/v5p: 459 TFLOP/s bfloat16, 95 GB, 2765 GB/s, "
                "1200 GB/s of links both ways together, pods of 8960, full torus from 4x4x4 on, "
                "50 Gbit/s of network a chip",
                "product_share: as v5e, not fitted",
            ),
        ),
        Device(
            name="cpu",
            peak={"bfloat16": 388e9, "float32": 212e9},
            memory=23 * GB,
            bandwidth=48 * GB,
            link=10 / 8 * GB,
            island=1,
            across=10 / 8 * GB,
            product_share=0.78,
            sources=(
                "measured on 2 cores of an AMD EPYC (Zen 4, AVX-512 with bfloat16), TensorFlow "
                "2.21, by CPU time: products of 1024 x 576 x 8192, a sum over 256 MB",
                "link, across: assumed, 10 Gbit/s of network",
                "product_share fitted: SmolLM2-135M, all weights, 8 rows of 128, mixed_bfloat16: "
                "3.23 s of both cores a step (benchmarks/training_step.py)",
            ),
        ),
    )
}


def device_of(name: str) -> Device:
    """Gives a row of `DEVICES`.

    Raises:
        InputError: there is none of that name.
    """
    if name not in DEVICES:
        raise InputError(f"device {name!r} is not known; known are {', '.join(DEVICES)}.")
    return DEVICES[name]
