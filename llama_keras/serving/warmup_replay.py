"""Replay a version's warm-up records before it answers others, as TF Serving does.

The file is a TFRecord of `PredictionLog` messages (see `warmup`), read here without TensorFlow: a
record is its length (8 bytes), a checksum of that (4), the data, and a checksum of that (4).
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError
from .grpc_messages import messages
from .signature_def import DEFAULT_SIGNATURE
from .tensor_proto import read_tensor

WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
# tensorflow_serving/servables/tensorflow/saved_model_warmup_util.h
_MOST_RECORDS = 1000


def replay_warmup(model: Any, folder: Path) -> int:
    """Runs every Predict record of a version's folder and gives their number.

    Args:
        model: the loaded version, with `run_arrays` and `signatures`.
        folder: of `saved_model.pb`.

    Raises:
        InputError: the file is damaged, or a record asks for what the model does not have.
    """
    file = folder / WARMUP_FILE
    if not file.is_file():
        return 0
    count = 0
    for count, record in enumerate(_records(file), start=1):
        if count > _MOST_RECORDS:
            raise InputError(f"{file} holds more than {_MOST_RECORDS} records; keep fewer.")
        log = messages()["PredictionLog"].FromString(record)
        if not log.HasField("predict_log"):
            continue  # the other kinds of requests run the same graphs
        request = log.predict_log.request
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        if name not in model.signatures:
            raise InputError(f"{file} asks for a signature {name!r} that the model does not have.")
        model.run_arrays(name, {key: read_tensor(value) for key, value in request.inputs.items()})
    return count


def _records(file: Path) -> Iterator[bytes]:
    content = file.read_bytes()
    at = 0
    while at < len(content):
        if at + 12 > len(content):
            raise InputError(f"{file} is cut off; export the model again.")
        (size,) = struct.unpack_from("<Q", content, at)
        if at + 16 + size > len(content):
            raise InputError(f"{file} is cut off; export the model again.")
        yield content[at + 12 : at + 12 + size]
        at += 16 + size
