"""One .safetensors file, read with its header checked and written tensor by tensor.

Layout: length of the header (uint64, little-endian), the header as JSON (name -> dtype, shape,
data_offsets), then the tensors, without gaps up to the end of the file.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from llama_keras.errors import InputError
from llama_keras.weights.files import TensorInfo, map_file

MAX_HEADER = 100_000_000  # the format's own limit
_DTYPES: dict[str, np.dtype] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
# Other types of the format: their sizes must fit too, though nothing here reads them.
_OTHER_SIZES = {"F64": 8, "I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2, "I8": 1}
_OTHER_SIZES |= {"U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}
_SIZES = _OTHER_SIZES | {name: dtype.itemsize for name, dtype in _DTYPES.items()}

WRITE_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


class SafetensorsFile:
    """A .safetensors file, memory-mapped; its header is checked before anything else is read."""

    path: Path
    tensors: dict[str, TensorInfo]
    """By name."""
    metadata: dict[str, str]
    """What its writer noted; nothing that the format gives a meaning."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._data = map_file(self.path, kind="safetensors")
        self.tensors, self.metadata = _read_header(self._data, self.path)

    def read(self, name: str) -> np.ndarray:
        """Values of one tensor.

        Args:
            name: A key of `tensors`.

        Returns:
            float32, float16 or bfloat16 of the tensor's shape; a read-only view of the file.

        Raises:
            InputError: No such tensor, or one that holds no floating-point numbers.
        """
        if name not in self.tensors:
            raise InputError(f"'{self.path}' has no tensor '{name}'.")
        info = self.tensors[name]
        if info.dtype not in _DTYPES:
            raise InputError(
                f"'{self.path}': tensor '{name}' is stored as {info.dtype}; known: "
                f"{', '.join(_DTYPES)}. Convert the checkpoint to one of these."
            )
        raw = self._data[info.offset : info.offset + info.num_bytes]
        return np.frombuffer(raw, _DTYPES[info.dtype]).reshape(info.shape)


def _damaged(path: Path, what: str) -> InputError:
    return InputError(f"The safetensors file '{path}' is damaged: {what}. Fetch it again.")


def _read_header(data: np.ndarray, path: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    size = len(data)
    if size < 8:
        raise _damaged(path, f"it has {size} bytes, too few for a header")
    length = int.from_bytes(bytes(data[:8]), "little")
    if length > min(size - 8, MAX_HEADER):
        raise _damaged(path, f"its header claims {length} bytes, but the file has {size}")
    start = 8 + length
    entries = _parse(bytes(data[8:start]), path)
    metadata = entries.pop("__metadata__", None)
    tensors = {name: _tensor(name, entry, start, path) for name, entry in entries.items()}
    _check_extents(tensors, start, size, path)
    notes = metadata.items() if isinstance(metadata, dict) else ()
    return tensors, {key: note for key, note in notes if isinstance(note, str)}


def _parse(raw: bytes, path: Path) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise _damaged(path, f"the key '{twice}' occurs twice in its header")
        return dict(pairs)

    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:  # also UnicodeDecodeError
        raise _damaged(path, "its header is not JSON") from error
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a JSON object")
    return header


def _tensor(name: str, entry: Any, start: int, path: Path) -> TensorInfo:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _damaged(path, f"the entry of tensor '{name}' should be dtype, shape, data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _SIZES:
        raise _damaged(path, f"tensor '{name}' has the unknown dtype {dtype!r}")
    if not _naturals(shape):
        raise _damaged(path, f"tensor '{name}' has the shape {shape!r}")
    if not _naturals(offsets) or len(offsets) != 2:
        raise _damaged(path, f"tensor '{name}' has the data_offsets {offsets!r}")
    num_bytes = math.prod(shape) * _SIZES[dtype]
    if offsets[1] - offsets[0] != num_bytes:
        raise _damaged(
            path,
            f"tensor '{name}' of shape {shape} and dtype {dtype} needs {num_bytes} bytes, but its "
            f"data_offsets span {offsets[1] - offsets[0]}",
        )
    return TensorInfo(name, tuple(shape), dtype, start + offsets[0], num_bytes)


def _naturals(value: Any) -> bool:
    # type(): JSON's true is an int to isinstance.
    return isinstance(value, list) and all(type(v) is int and v >= 0 for v in value)


def _check_extents(tensors: dict[str, TensorInfo], start: int, size: int, path: Path) -> None:
    end = start
    for tensor in sorted(tensors.values(), key=lambda t: (t.offset, t.num_bytes)):
        if tensor.offset != end:
            what = "overlaps the one before" if tensor.offset < end else "leaves a gap before it"
            raise _damaged(path, f"tensor '{tensor.name}' {what}")
        end += tensor.num_bytes
    if end != size:
        what = "was cut short" if size < end else "has bytes that belong to no tensor"
        raise _damaged(path, f"its tensors end at byte {end}, the file at {size}: it {what}")


def write_safetensors(
    path: Path,
    tensors: Iterable[tuple[str, np.ndarray]],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    dtype: str,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a .safetensors file, one tensor in memory at a time.

    Args:
        path: The file; not made atomically (see `atomic.new_directory`).
        tensors: Names and values, in the order of `shapes`.
        shapes: Name to shape of each tensor.
        dtype: A key of `WRITE_DTYPES`; values are converted to it.
        metadata: Notes to put into the header.

    Raises:
        InputError: A finite value that `dtype` cannot hold.
    """
    code = WRITE_DTYPES[dtype]
    # transformers insists on a format.
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * _SIZES[code]
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [begin, end]}
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)  # tensors start on a multiple of 8
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for name, values in tensors:
            converted = _convert(name, values, _DTYPES[code])
            if converted.shape != tuple(shapes[name]):
                raise ValueError(f"'{name}' has shape {converted.shape}, not {shapes[name]}")
            file.write(np.ascontiguousarray(converted).view(np.uint8).data)


def _convert(name: str, values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if values.dtype == dtype:
        return values
    with np.errstate(over="ignore"):
        converted = values.astype(dtype)
    if np.isfinite(values).all() and not np.isfinite(converted).all():
        raise InputError(
            f"'{name}' has values beyond the range of {dtype.name}. Write float32 or bfloat16."
        )
    return converted
