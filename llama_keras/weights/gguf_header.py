"""The header of a GGUF file, parsed with every length checked against the file.

Layout (all little-endian): magic, version, tensor count, metadata count; the metadata as
(key, type, value); the tensors as (name, dimensions, type, offset); padding; tensor data.
"""

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from llama_keras.errors import InputError
from llama_keras.weights.files import TensorInfo

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_DIMENSIONS = 4
MAX_NESTING = 4  # arrays of arrays; deeper is not a model file

_SCALARS: dict[int, str] = {
    GGUFValueType.UINT8: "<u1",
    GGUFValueType.INT8: "<i1",
    GGUFValueType.UINT16: "<u2",
    GGUFValueType.INT16: "<i2",
    GGUFValueType.UINT32: "<u4",
    GGUFValueType.INT32: "<i4",
    GGUFValueType.UINT64: "<u8",
    GGUFValueType.INT64: "<i8",
    GGUFValueType.FLOAT32: "<f4",
    GGUFValueType.FLOAT64: "<f8",
    GGUFValueType.BOOL: "?",
}


@dataclass(frozen=True)
class Header:
    """All that stands before the tensor data of a GGUF file."""

    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]


class _Cursor:
    """Reads forward through the header and refuses to run past the end of the file."""

    def __init__(self, data: np.ndarray, path: Any):
        self.data = data.data
        self.path = path
        self.at = 0

    def take(self, count: int, what: str) -> memoryview:
        if count > len(self.data) - self.at:
            raise InputError(
                f"GGUF file '{self.path}' ends too early: {what} at byte {self.at} needs {count} "
                f"bytes, and the file has {len(self.data)}. The download or copy was cut short; "
                "fetch the file again."
            )
        part = self.data[self.at : self.at + count]
        self.at += count
        return part

    def number(self, form: str, what: str) -> int:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form), what))[0]

    def text(self, what: str) -> str:
        raw = bytes(self.take(self.number("Q", what), what))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise damaged(self.path, f"{what} is not UTF-8 (byte {self.at})") from error

    def numbers(self, kind: int, count: int, what: str) -> list[Any]:
        dtype = np.dtype(_SCALARS[kind])
        values = np.frombuffer(self.take(count * dtype.itemsize, what), dtype).tolist()
        if kind == GGUFValueType.FLOAT32:
            return [shortest_float32(value) for value in values]
        return values

    def value(self, kind: int, what: str, depth: int = 0) -> Any:
        if kind == GGUFValueType.STRING:
            return self.text(what)
        if kind in _SCALARS:
            return self.numbers(kind, 1, what)[0]
        if kind != GGUFValueType.ARRAY or depth == MAX_NESTING:
            raise damaged(self.path, f"{what} has the unknown value type {kind}")
        inner, count = self.number("I", what), self.number("Q", what)
        if inner in _SCALARS:
            return self.numbers(inner, count, what)
        # Every element takes at least 8 bytes, so a count that lies ends in `take` at once.
        if count * 8 > len(self.data) - self.at:
            self.take(count * 8, what)
        return [self.value(inner, what, depth + 1) for _ in range(count)]


def damaged(path: Any, what: str) -> InputError:
    """The error for a GGUF file whose header contradicts itself."""
    return InputError(f"GGUF file '{path}' is damaged: {what}. Fetch or convert it again.")


def shortest_float32(value: float) -> float:
    """The shortest decimal that is the same float32: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def read_header(data: np.ndarray, *, path: Any) -> Header:
    """The metadata and tensor table of a GGUF file.

    Args:
        data: uint8 (bytes of the whole file,), memory-mapped as a rule.
        path: For messages.

    Returns:
        The `Header`; every tensor lies within the file and overlaps no other.

    Raises:
        InputError: Not a GGUF file, an unknown version, or lengths that do not fit the file.
    """
    cursor = _Cursor(data, path)
    _check_magic(cursor)
    num_tensors, num_keys = cursor.number("Q", "tensor count"), cursor.number("Q", "key count")
    metadata: dict[str, Any] = {}
    for index in range(num_keys):
        key = cursor.text(f"metadata key {index}")
        if key in metadata:
            raise damaged(path, f"metadata key '{key}' occurs twice")
        metadata[key] = cursor.value(cursor.number("I", key), f"metadata '{key}'")
    rows = [_tensor_row(cursor, index) for index in range(num_tensors)]
    return Header(metadata=metadata, tensors=_place(rows, metadata, cursor))


def _check_magic(cursor: _Cursor) -> None:
    magic = bytes(cursor.data[:4])
    if magic != MAGIC:
        raise InputError(
            f"'{cursor.path}' is not a GGUF file: it starts with {magic!r} instead of {MAGIC!r}. "
            "Pass a .gguf model file (a web page saved by mistake, or a Git LFS pointer, is the "
            "usual cause)."
        )
    cursor.take(4, "magic")
    version = cursor.number("I", "version")
    if version not in VERSIONS:
        kind = "a big-endian file" if version & 0xFFFF == 0 else f"version {version}"
        raise InputError(
            f"GGUF file '{cursor.path}' is {kind}; known are the little-endian versions "
            f"{', '.join(map(str, VERSIONS))}. Convert the model again with a current llama.cpp."
        )


def _tensor_row(cursor: _Cursor, index: int) -> tuple[str, tuple[int, ...], int, int]:
    name = cursor.text(f"name of tensor {index}")
    what = f"entry of tensor '{name}'"
    num_dimensions = cursor.number("I", what)
    if not 1 <= num_dimensions <= MAX_DIMENSIONS:
        raise damaged(cursor.path, f"tensor '{name}' has {num_dimensions} dimensions")
    # ggml lists the fastest axis first; numpy wants it last.
    shape = tuple(cursor.number("Q", what) for _ in range(num_dimensions))[::-1]
    return name, shape, cursor.number("I", what), cursor.number("Q", what)


def _place(rows: list[Any], metadata: dict[str, Any], cursor: _Cursor) -> dict[str, TensorInfo]:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise damaged(cursor.path, f"general.alignment is {alignment!r}, not a power of two")
    start = -(-cursor.at // alignment) * alignment
    tensors: dict[str, TensorInfo] = {}
    for name, shape, kind, offset in rows:
        if name in tensors:
            raise damaged(cursor.path, f"tensor '{name}' occurs twice")
        if offset % alignment:
            raise damaged(cursor.path, f"tensor '{name}' starts off the alignment of {alignment}")
        dtype, num_bytes = _storage(name, shape, kind, cursor.path)
        tensors[name] = TensorInfo(name, shape, dtype, start + offset, num_bytes)
    _check_extents(tensors, cursor)
    return tensors


def _storage(name: str, shape: tuple[int, ...], kind: int, path: Any) -> tuple[str, int]:
    try:
        quantization = GGMLQuantizationType(kind)
        block, block_bytes = GGML_QUANT_SIZES[quantization]
    except (ValueError, KeyError):
        raise InputError(
            f"GGUF file '{path}': tensor '{name}' has the storage type {kind}, which the installed "
            "gguf package does not know. Try: pip install --upgrade gguf"
        ) from None
    if shape[-1] % block or not all(shape):
        raise damaged(path, f"tensor '{name}' of shape {shape} is no whole number of blocks")
    return quantization.name, math.prod(shape) // block * block_bytes


def _check_extents(tensors: dict[str, TensorInfo], cursor: _Cursor) -> None:
    size, end, before = len(cursor.data), 0, ""
    for tensor in sorted(tensors.values(), key=lambda t: t.offset):
        if tensor.offset < end:
            raise damaged(cursor.path, f"tensors '{before}' and '{tensor.name}' overlap")
        end, before = tensor.offset + tensor.num_bytes, tensor.name
    if end > size:
        raise InputError(
            f"GGUF file '{cursor.path}' is truncated: tensor '{before}' should end at byte {end}, "
            f"but the file has {size}. The download or copy was cut short; fetch the file again."
        )
