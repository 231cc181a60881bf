"""TensorFlow's `TensorProto` to and from NumPy arrays, without TensorFlow.

Fields and their meaning: tensorflow/core/framework/tensor.proto. A tensor comes either as the bytes
of its values or as a list of them, whose last one stands for all that are left out.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import InputError
from .messages import DTYPES

# message -> fields, as `messages.message_classes` takes them; `TensorShape` is signature_def's.
TENSOR_MESSAGES = {
    "TensorProto": [
        ("dtype", 1, "enum"),
        ("tensor_shape", 2, "TensorShape"),
        ("tensor_content", 4, "bytes"),
        ("float_val", 5, "[float]"),
        ("double_val", 6, "[double]"),
        ("int_val", 7, "[int32]"),
        ("string_val", 8, "[bytes]"),
        ("int64_val", 10, "[int64]"),
        ("bool_val", 11, "[bool]"),
        ("half_val", 13, "[int32]"),
        ("uint32_val", 16, "[uint32]"),
        ("uint64_val", 17, "[uint64]"),
    ],
}
# TensorFlow's name -> (NumPy type, field of single values)
_TYPES: Mapping[str, tuple[Any, str]] = {
    "string": (object, "string_val"),
    "bool": (np.bool_, "bool_val"),
    "float": (np.float32, "float_val"),
    "double": (np.float64, "double_val"),
    "int64": (np.int64, "int64_val"),
    "uint32": (np.uint32, "uint32_val"),
    "uint64": (np.uint64, "uint64_val"),
    **{name: (np.dtype(name), "int_val") for name in ("int8", "uint8", "int16", "uint16", "int32")},
}
_MOST_FILLED = 2**22
_NUMBERS = {name.lower(): number for number, name in DTYPES.items()}


def fill_tensor(proto: Any, array: np.ndarray, *, dtype: str) -> None:
    """Writes an array into an empty `TensorProto`.

    Args:
        proto: the message.
        array: strings as `bytes` (dtype object).
        dtype: TensorFlow's lower-case name.

    Raises:
        InputError: the type is not one of those that signatures here have.
    """
    if dtype not in _TYPES:
        raise InputError(f"A tensor of the type {dtype!r} cannot be sent; known: {list(_TYPES)}.")
    proto.dtype = _NUMBERS[dtype]
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if dtype == "string":
        proto.string_val.extend(array.reshape(-1).tolist())
    else:
        proto.tensor_content = np.ascontiguousarray(array, _TYPES[dtype][0]).tobytes()


def read_tensor(proto: Any) -> np.ndarray:
    """Gives the array of a `TensorProto`; strings as `bytes` (dtype object).

    Raises:
        InputError: an unknown type, or values that do not fill the shape.
    """
    dtype = DTYPES.get(proto.dtype, f"type {proto.dtype}").lower()
    if dtype not in _TYPES:
        raise InputError(f"a tensor of the type {dtype} cannot be read")
    numpy_type, field = _TYPES[dtype]
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if proto.tensor_shape.unknown_rank or min(shape, default=0) < 0:
        raise InputError(f"a tensor of the shape {shape} is not whole")
    count = math.prod(shape)
    if proto.tensor_content and dtype != "string":
        if len(proto.tensor_content) != count * np.dtype(numpy_type).itemsize:
            raise InputError(
                f"a tensor of the shape {shape} does not have {len(proto.tensor_content)} bytes"
            )
        return np.frombuffer(proto.tensor_content, numpy_type).reshape(shape)
    values = list(getattr(proto, field))
    if len(values) > count or (not values and count):
        raise InputError(f"a tensor of the shape {shape} does not have {len(values)} values")
    # One value may stand for all, so a few bytes could ask for all of the memory.
    if count > max(len(values), _MOST_FILLED):
        raise InputError(f"a tensor of the shape {shape} is too large for {len(values)} values")
    flat = np.empty(count, numpy_type)
    flat[: len(values)] = values
    flat[len(values) :] = values[-1] if values else 0
    return flat.reshape(shape)
