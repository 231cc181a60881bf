"""What both checkpoint formats share: a tensor's description and mapped files."""

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
