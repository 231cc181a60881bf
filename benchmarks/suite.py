"""What a benchmark consists of: claims, and for each library a function that builds its runs."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

THREADS = 2
# Read by OpenMP and by Rust's thread pool when they start.
ENVIRONMENT = {
    "OMP_NUM_THREADS": str(THREADS),
    "RAYON_NUM_THREADS": str(THREADS),
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TRANSFORMERS_VERBOSITY": "error",
}


@dataclass(frozen=True)
class Claim:
    """One comparison: our fastest mode over the fastest mode of the peers."""

    name: str
    unit: str
    """What is counted per second."""
    aim: float | None
    """The least ratio that is wanted."""
    peers: tuple[str, ...]
    """Libraries that the ratio is to; the others' figures only stand beside it."""


@dataclass(frozen=True)
class Runs:
    """What one library has to time."""

    runs: dict[str, dict[str, Callable[[], Any]]]
    """For each claim's name and each mode (such as a dtype), the work of one round."""
    amounts: dict[str, float]
    """For each claim's name, how much of the claim's unit one round does."""
    results: str = ""
    """Stands for what the library computed; where two libraries give it, it must be the same."""
    handover: dict[str, Any] = field(default_factory=dict)
    """Options for the libraries that are built later."""


@dataclass(frozen=True)
class Library:
    """How to build a library's runs, and which interpreter has the library."""

    build: Callable[[dict[str, Any]], Runs]
    python: Literal["ours", "peer"] = "ours"


@dataclass(frozen=True)
class Suite:
    """A benchmark; its first library is ours."""

    claims: tuple[Claim, ...]
    libraries: dict[str, Library]


def limit_tensorflow() -> None:
    """Gives TensorFlow `THREADS` threads; call before its first operation."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)


def limit_torch() -> None:
    """Gives torch `THREADS` threads."""
    import torch

    torch.set_num_threads(THREADS)


def worker_environment() -> dict[str, str]:
    """Gives the environment variables of a worker."""
    return {**os.environ, **ENVIRONMENT}
