"""Checkpoints in a folder: each is there whole or not at all, and damage is found before use.

A checkpoint `NAME` is two files. `NAME.safetensors` holds the arrays. `NAME.json` holds the rest,
the SHA-256 of the arrays' file and one of its own content; it is written last, so a checkpoint
without it was never finished.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np

from llama_keras.atomic import new_file
from llama_keras.errors import InputError

logger = logging.getLogger("llama_keras")

FORMAT = 1
# NumPy's name of a dtype -> that of the safetensors format.
_CODES = {
    "bool": "BOOL",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
}
_DTYPES = {
    code: np.dtype(getattr(ml_dtypes, name) if hasattr(ml_dtypes, name) else name)
    for name, code in _CODES.items()
}


class DamagedError(Exception):
    """A checkpoint is not what was written; the message says in what."""


@dataclass(frozen=True)
class Checkpoint:
    """What a run was at a step."""

    step: int
    """Batches that were learned from."""
    arrays: Mapping[str, np.ndarray]
    """Variables and the like, by name."""
    notes: dict[str, Any]
    """Plain values."""
    finished: bool = False
    """Whether nothing is left to do."""
    score: float | None = None
    """The value of `Checkpoints.best`."""

    @property
    def name(self) -> str:
        """Its files' name without a suffix; names sort in the order of training."""
        return f"step-{self.step:09d}{'-end' if self.finished else ''}"


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """The checkpoints of one run: what `fit(checkpoints=…)` of a task takes.

    Example:
    ```python
    import tempfile
    from llama_keras.tasks import TextClassifier
    from llama_keras.training import Checkpoints

    model = TextClassifier.from_preset("llama-tiny", labels=["bad", "good"])
    kept = Checkpoints(folder=tempfile.mkdtemp(), every=100)
    # Killed and called anew, by the same program, it goes on from the last checkpoint.
    model.fit(["Awful.", "Lovely."], ["bad", "good"], checkpoints=kept, verbose=0)
    ```
    """

    folder: str | Path
    """Made when it is missing; it belongs to one run."""
    every: int | None = None
    """Steps between checkpoints."""
    minutes: float | None = 5.0
    """Minutes after which one is due, whatever `every` says. Several workers have no common clock
    and go by `every` alone."""
    keep: int = 2
    """So many of the last ones are kept."""
    best: str | None = None
    """A metric of the epochs' logs, such as `val_loss`: the checkpoint with its best value is kept
    too, and written whenever there is a better one."""
    best_mode: Literal["min", "max"] = "min"
    """What the best value is."""
    _path: Path = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "_path", Path(self.folder).expanduser())
        for name, least in (("every", 1), ("keep", 1), ("minutes", 0)):
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise InputError(f"{name} must be {least} or more; received {value!r}.")
        if self.best_mode not in ("min", "max"):
            raise InputError(f"best_mode must be 'min' or 'max'; received {self.best_mode!r}.")

    def names(self) -> list[str]:
        """Gives the names of all checkpoints in the order of training, whole or damaged."""
        return sorted(file.stem for file in self._path.glob("step-*.json"))

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes a checkpoint, and removes those that are not kept.

        Later ones are removed as well: a run that goes on from an earlier one, since the last was
        damaged, leaves them behind.
        """
        self._path.mkdir(parents=True, exist_ok=True)
        self._clear_unfinished()
        name = checkpoint.name
        arrays = self._file(name, "safetensors")
        # An earlier one of that name is none while its arrays are replaced.
        self._file(name, "json").unlink(missing_ok=True)
        with new_file(arrays) as temporary:
            digest, size = _write_arrays(temporary, checkpoint.arrays)
        content = {
            "format": FORMAT,
            "step": checkpoint.step,
            "finished": checkpoint.finished,
            "score": checkpoint.score,
            "size": size,
            "sha256": digest,
            "notes": checkpoint.notes,
        }
        with new_file(self._file(name, "json")) as temporary:
            text = json.dumps({**content, "check": _digest_of(content)})
            temporary.write_text(text, encoding="utf-8")
        _flush_folder(self._path)
        self._prune(name)

    def load(self, name: str) -> Checkpoint:
        """Gives a checkpoint by its name.

        Raises:
            DamagedError: it is not what was written.
        """
        content = self._content(name)
        arrays = _read_arrays(
            self._file(name, "safetensors"), digest=content["sha256"], size=content["size"]
        )
        return Checkpoint(
            content["step"], arrays, content["notes"], content["finished"], content["score"]
        )

    def latest(self) -> Checkpoint | None:
        """Gives the last checkpoint that is whole, or None where there is none at all.

        A warning names each damaged one.

        Raises:
            InputError: all are damaged.
        """
        names = self.names()
        for name in reversed(names):
            try:
                return self.load(name)
            except DamagedError as error:
                logger.warning(
                    "checkpoint %s is damaged (%s); taking the one before it",
                    self._file(name, "json"),
                    error,
                )
        if names:
            raise InputError(
                f"All {len(names)} checkpoints in '{self._path}' are damaged; remove the folder to "
                "begin anew."
            )
        return None

    def best_name(self) -> str | None:
        """Gives the name of the checkpoint with the best score; None where none has one."""
        scores = {}
        for name in self.names():
            try:
                score = self._content(name)["score"]
            except DamagedError:
                continue
            if score is not None:
                scores[name] = score
        choose: Callable = min if self.best_mode == "min" else max
        return choose(scores, key=lambda name: scores[name]) if scores else None

    def _file(self, name: str, suffix: str) -> Path:
        return self._path / f"{name}.{suffix}"

    def _content(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads(self._file(name, "json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DamagedError(f"its .json cannot be read: {error}") from error
        if not isinstance(content, dict) or content.pop("check", None) != _digest_of(content):
            raise DamagedError("its .json was changed after it was written")
        if content["format"] != FORMAT:
            raise InputError(
                f"'{self._file(name, 'json')}' is of another version of this package (format "
                f"{content['format']}, not {FORMAT}); go on with that one, or begin anew."
            )
        return content

    def _clear_unfinished(self) -> None:
        """Removes what killed writers left."""
        whole = set(self.names())
        for file in self._path.glob(".step-*"):
            file.unlink(missing_ok=True)
        for file in self._path.glob("step-*.safetensors"):
            if file.stem not in whole:
                file.unlink(missing_ok=True)

    def _prune(self, last: str) -> None:
        names = self.names()
        earlier = [name for name in names if name <= last]
        kept = set(earlier[-self.keep :])
        for name in names:
            if name > last:
                self._remove(name)
        if self.best is not None and (best := self.best_name()):
            kept.add(best)
        for name in earlier:
            if name not in kept:
                self._remove(name)

    def _remove(self, name: str) -> None:
        for suffix in ("json", "safetensors"):  # without the first it is none any more
            self._file(name, suffix).unlink(missing_ok=True)


def _digest_of(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> tuple[str, int]:
    """Writes a .safetensors file; gives its SHA-256 and its size in bytes."""
    header, end = {}, 0
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        code = _CODES[array.dtype.name]
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [begin, end]}
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)  # arrays start on a multiple of 8
    sha = hashlib.sha256()
    with path.open("wb") as file:
        for part in (len(raw).to_bytes(8, "little"), raw, *map(_bytes_of, arrays.values())):
            sha.update(part)
            file.write(part)
    return sha.hexdigest(), 8 + len(raw) + end


def _bytes_of(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _read_arrays(path: Path, *, digest: str, size: int) -> dict[str, np.ndarray]:
    try:
        found = path.stat().st_size
        if found != size:
            raise DamagedError(f"its .safetensors has {found} bytes, not {size}")
        data = np.memmap(path, np.uint8, mode="r")
    except OSError as error:
        raise DamagedError(f"its .safetensors cannot be read: {error}") from error
    if hashlib.sha256(data.data).hexdigest() != digest:
        raise DamagedError("its .safetensors was changed after it was written")
    start = 8 + int.from_bytes(bytes(data[:8]), "little")
    header = json.loads(bytes(data[8:start]))
    arrays = {}
    for name, entry in header.items():
        begin, end = (start + offset for offset in entry["data_offsets"])
        flat = np.frombuffer(data[begin:end], _DTYPES[entry["dtype"]])
        arrays[name] = flat.reshape(entry["shape"])
    return arrays
