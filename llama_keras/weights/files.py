"""What both checkpoint formats share: a tensor's description, mapped files, atomic folders."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llama_keras.errors import InputError


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a checkpoint file, as its header describes it."""

    name: str
    shape: tuple[int, ...]
    """Row-major: a projection is (out, in)."""
    dtype: str
    """Storage type by its name in the file format, e.g. "Q4_1", "F32", "BF16"."""
    offset: int
    """Of the first byte, from the start of the file."""
    num_bytes: int


def map_file(path: Path, *, kind: str) -> np.ndarray:
    """The bytes of a file, memory-mapped.

    Args:
        path: An existing file.
        kind: What it should be, for messages.

    Returns:
        uint8 (bytes of the file,), read-only.

    Raises:
        InputError: The file is missing, unreadable or empty.
    """
    try:
        if path.stat().st_size == 0:
            raise InputError(f"The {kind} file '{path}' is empty. Fetch it again.")
        # A plain array over the map: memmap's own class makes each of many thousand slices slow.
        return np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
    except OSError as error:
        raise InputError(
            f"The {kind} file '{path}' cannot be read ({error.strerror}). Check the path."
        ) from error


@contextlib.contextmanager
def new_directory(directory: str | Path) -> Iterator[Path]:
    """A folder to write into that takes its final name only when the block ends well.

    Args:
        directory: The final path; it must not exist.

    Yields:
        A temporary folder beside it; after an exception nothing of it is left.

    Raises:
        InputError: Something of that name exists already, or its parent cannot be written.
    """
    final = Path(directory)
    _refuse_existing(final)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name}."))
    except OSError as error:
        raise InputError(f"'{final}' cannot be made ({error.strerror}). Choose another.") from error
    try:
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                _flush(path)
        temporary.chmod(0o755)  # mkdtemp makes it private
        _refuse_existing(final)  # rename would replace an empty folder made meanwhile
        temporary.rename(final)
        _flush(final.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _refuse_existing(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise InputError(
            f"'{path}' exists already and is not overwritten. Choose another name, or remove it."
        )


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
