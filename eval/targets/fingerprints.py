"""SHA-256 of what is measured."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def file_fingerprint(files: Sequence[Path]) -> str:
    """Gives the SHA-256 of files' names and contents, in the order given."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def array_fingerprint(variables: Iterable[Any]) -> str:
    """Gives the SHA-256 of Keras variables' paths, dtypes, shapes and values."""
    import numpy as np
    from keras import ops

    digest = hashlib.sha256()
    for variable in variables:
        array = np.ascontiguousarray(ops.convert_to_numpy(variable.value))
        # Without the name of the model, which counts up in a process.
        path = variable.path.partition("/")[2]
        digest.update(f"{path} {array.dtype} {array.shape}\0".encode())
        digest.update(array.view("uint8").data if array.size else b"")
    return digest.hexdigest()


def content_sha256(file: Path) -> str:
    """Gives the SHA-256 of a file's content, as sha256sum does."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
