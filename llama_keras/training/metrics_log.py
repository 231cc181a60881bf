"""Metrics of a run as JSON lines, each written out at once."""

import json
import os
import time
from pathlib import Path

import keras


class MetricsLog(keras.callbacks.Callback):
    """Appends a line every so many steps, and one at the end of each epoch.

    A line holds `epoch` (from 1), `step` (from the start of the fit), `seconds`, and the metrics
    so far in the epoch; at its end also those on the validation data, as `val_…`.

    Args:
        path: the file; its folder exists.
        every: steps between lines.
    """

    def __init__(self, path: str | Path, *, every: int = 50):
        super().__init__()
        self.path = Path(path)
        self.every = every
        self._epoch = self._step = 0
        self._start = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        """Notes the epoch."""
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch, logs=None):
        """Writes a line when it is time."""
        self._step += 1
        if self._step % self.every == 0:
            self.write(logs)

    def on_epoch_end(self, epoch, logs=None):
        """Writes the epoch's line."""
        self.write(logs, end_of_epoch=True)

    def get_state(self) -> dict:
        """Gives what a resumed run needs to go on with the file."""
        return {
            "step": self._step,
            "seconds": time.monotonic() - self._start,
            "size": self.path.stat().st_size if self.path.exists() else 0,
        }

    def set_state(self, state: dict) -> None:
        """Goes on; lines of steps that are to come again are cut off."""
        self._step = state["step"]
        self._start = time.monotonic() - state["seconds"]
        if self.path.exists():
            os.truncate(self.path, min(state["size"], self.path.stat().st_size))

    def write(self, logs=None, **more) -> None:
        """Writes one line."""
        line = {
            "epoch": self._epoch,
            "step": self._step,
            "seconds": round(time.monotonic() - self._start, 2),
            **more,
            **{name: float(value) for name, value in (logs or {}).items()},
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
