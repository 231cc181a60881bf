"""SHA-256 of what is measured."""

import hashlib
import json
import re
from collections.abc import Sequence
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


def model_fingerprint(model: Any) -> str:
    """Gives the SHA-256 of all of a task that shapes its answers.

    These are its configuration (which has the dtypes that it computes in), its tokenizer, and its
    weights' paths, dtypes, shapes and values.
    """
    import numpy as np
    from keras import ops

    config = json.dumps(model.get_config(), sort_keys=True, default=str)
    # Without the numbers behind names, which count up in a process.
    digest = hashlib.sha256(re.sub(r'("name": "[^"]*?)_\d+"', r'\1"', config).encode())
    digest.update(model.tokenizer.spec.to_json().encode())
    for variable in model.weights:
        array = np.ascontiguousarray(ops.convert_to_numpy(variable.value))
        path = variable.path.partition("/")[2]
        digest.update(f"{path} {array.dtype} {array.shape}\0".encode())
        digest.update(array.view("uint8").data if array.size else b"")
    return digest.hexdigest()


def content_sha256(file: Path) -> str:
    """Gives the SHA-256 of a file's content, as sha256sum does."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
