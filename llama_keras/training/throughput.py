"""How fast a fit goes: tokens a second, operations a second, padding, memory, time left."""

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from llama_keras.data.bucketing import Sizes
from llama_keras.planning.devices import DEVICES
from llama_keras.planning.shapes import Shape, weights_of


class Throughput(keras.callbacks.Callback):
    """Shows how fast a fit of a task goes, in the progress bar, in TensorBoard and in `summary`.

    What is counted are the tokens of texts, not of padding. The first step, which traces the graph,
    is left out. The operations are those that the matrices need (6 a weight and token, 4 where it
    is frozen, as under LoRA); MFU is their share of what the device can do, where
    `planning.devices` has it (arXiv 2204.02311, appendix B).

    Args:
        log_dir: folder for TensorBoard's scalars; None writes none.
        every: steps between these.
    """

    def __init__(self, log_dir: str | Path | None = None, *, every: int = 10):
        super().__init__()
        self.log_dir, self.every = log_dir, every
        self._sizes: Callable[..., Sizes] | None = None
        self._writer: Any = None
        self._start: float | None = None
        self._epoch: Sizes | None = None
        self.tokens = self.places = 0
        self.seconds = 0.0
        self._step, self._last = 0, -1

    def on_train_begin(self, logs=None):
        """Finds what the fit's batches hold."""
        self._sizes = getattr(self.model, "batch_sizes", None)
        self._flops = _flops_per_token(self.model)
        if self.log_dir is not None:
            self._writer = tf.summary.create_file_writer(str(self.log_dir))

    def on_epoch_begin(self, epoch, logs=None):
        """Asks for the epoch's sizes, and leaves the time between epochs out."""
        self._epoch = self._sizes(epoch=epoch) if self._sizes is not None else None
        self._start = time.perf_counter() if self._step else None
        self._last = -1

    def on_train_batch_end(self, batch, logs=None):
        """Counts the batch in, and adds the rate to what the progress bar shows."""
        now = time.perf_counter()
        self._step += 1
        if self._epoch is not None and self._start is not None:
            done = slice(self._last + 1, batch + 1)  # several with `steps_per_execution`
            self.tokens += int(self._epoch.tokens[done].sum())
            self.places += int(self._epoch.places[done].sum())
            self.seconds += now - self._start
        self._start, self._last = now, batch
        if self.tokens and logs is not None:
            logs["tokens_per_second"] = self.tokens_per_second
        if self._writer is not None and self.tokens and self._step % self.every == 0:
            with self._writer.as_default(step=self._step):
                for name, value in self.results().items():
                    tf.summary.scalar(f"throughput/{name}", value)

    def on_train_end(self, logs=None):
        """Closes TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()

    @property
    def tokens_per_second(self) -> float:
        """Tokens of texts, a second of training."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def results(self) -> dict[str, float]:
        """Gives the figures so far: those that are known."""
        found = {"peak_memory_bytes": float(peak_memory())}
        if self.tokens:
            rate = self.tokens_per_second
            found["tokens_per_second"] = rate
            found["padding_share"] = 1 - self.tokens / self.places
            if self._flops:
                found["flops_per_second"] = rate * self._flops
                if peak := _peak(self.model):
                    found["mfu"] = rate * self._flops / peak
        return found

    def summary(self) -> str:
        """Gives the figures as a line for people."""
        found = self.results()
        parts = []
        if "tokens_per_second" in found:
            parts.append(f"{found['tokens_per_second']:,.0f} tokens/s")
            parts.append(f"{100 * found['padding_share']:.1f} % padding")
        if "flops_per_second" in found:
            parts.append(f"{found['flops_per_second'] / 1e12:.3g} TFLOP/s")
        if "mfu" in found:
            parts.append(f"MFU {100 * found['mfu']:.1f} %")
        parts.append(f"peak memory {found['peak_memory_bytes'] / 1e9:.2f} GB")
        return ", ".join(parts)


def peak_memory() -> int:
    """Gives the most bytes that were in use: of the first GPU, else of this process."""
    if gpus := tf.config.list_logical_devices("GPU"):
        return int(tf.config.experimental.get_memory_info(gpus[0].name)["peak"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # KiB but on macOS


def _flops_per_token(model) -> float:
    """Gives the operations of one token's step without attention, which depends on its length."""
    backbone = getattr(model, "backbone", None)
    if backbone is None:
        return 0.0
    shape = Shape.from_config("the model", backbone.get_config())
    rank = getattr(getattr(model, "strategy", None), "rank", None)
    # Only what predicts tokens has a product with the vocabulary.
    parts = ("block", "lora", "head") if hasattr(model, "objective") else ("block", "lora")
    matrices = [w for w in weights_of(shape, lora_rank=rank) if len(w.shape) == 2]
    return float(sum(w.count * (6 if w.learned else 4) for w in matrices if w.part in parts))


def _peak(model) -> float | None:
    """Gives the FLOP/s of all replicas' devices by the table, where it has them."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return None  # the table's CPU is one of many
    name = str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "")).lower()
    device = next((device for key, device in DEVICES.items() if key in name), None)
    if device is None:
        return None
    dtype = model.backbone.dtype_policy.compute_dtype
    peak = device.peak.get(dtype)
    return None if peak is None else peak * getattr(model, "num_replicas", 1)
