"""The JSON of TF Serving's REST predict call, to and from NumPy arrays.

Behaviour and messages follow tensorflow_serving/util/json_tensor.cc; the format is described at
https://www.tensorflow.org/tfx/serving/api_rest. No web framework and no TensorFlow here.
"""

import base64
import binascii
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .signature_def import Signature, TensorSpec

BYTES_SUFFIX = "_bytes"  # outputs so named are base64, as in TF Serving
_DEEPEST = 32  # axes; NumPy has at most 64
_SHOWN = 200  # characters of a bad value quoted in an error


class RestError(Exception):
    """A request that cannot be answered: an HTTP status and the message for the caller."""

    def __init__(self, status: int, message: str):
        """Keep both; the message goes into `{"error": message}`."""
        super().__init__(message)
        self.status = status
        self.message = message


def parse_body(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a request body (NaN and Infinity are allowed, as TF Serving does).

    Raises:
        RestError: 400, the body is not a JSON object.
    """
    if not body:
        raise RestError(400, "JSON Parse error: The document is empty")
    try:
        document = json.loads(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RestError(400, f"JSON Parse error: not UTF-8 at offset: {error.start}") from None
    except json.JSONDecodeError as error:
        offset = len(error.doc[: error.pos].encode("utf-8", "replace"))
        text = f"JSON Parse error: Invalid value. {error.msg} at offset: {offset}"
        raise RestError(400, text) from None
    except (RecursionError, ValueError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RestError(400, f"JSON Parse error: {reason}") from None
    if not isinstance(document, dict):
        raise RestError(400, f"JSON Value: {_show(document)} Is not object")
    return document


def requested_signature(document: Mapping[str, Any]) -> str:
    """Return the signature that a request names, `""` for the default one.

    Raises:
        RestError: 400, `signature_name` is not a string.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise RestError(
            400,
            f"JSON Value: {_show(document)} not formatted correctly. "
            "'signature_name' key must be a string value.",
        )
    return name


def decode_inputs(
    document: Mapping[str, Any], *, signature: Signature
) -> tuple[dict[str, np.ndarray], bool]:
    """Return the input arrays of a predict request and whether it was in row format.

    Args:
        document: the parsed body, with `instances` (rows) or `inputs` (columns).
        signature: names, types and shapes to fill.

    Raises:
        RestError: 400, a missing or unknown input, a wrong type or shape; 501, a type that the
            REST format cannot carry.
    """
    if not signature.inputs:
        raise RestError(400, "Failed to get input map for signature: it has no inputs")
    keys = [key for key in ("instances", "inputs") if key in document]
    if not keys:
        raise RestError(400, "Missing 'inputs' or 'instances' key")
    if len(keys) == 2:
        raise RestError(
            400,
            f"JSON Value: {_show(document)} Not formatted correctly expecting only one of "
            "'inputs' or 'instances' keys to exist",
        )
    rows = keys == ["instances"]
    try:
        read = _from_instances if rows else _from_inputs
        inputs = read(document[keys[0]], signature.inputs)
    except RecursionError:
        raise RestError(400, "JSON Parse error: nested too deeply") from None
    for name, array in inputs.items():
        _check_shape(name, array, signature.inputs[name])
    return inputs, rows


def encode_outputs(outputs: Mapping[str, np.ndarray], *, rows: bool) -> bytes:
    """Return the response body: `predictions` for rows, `outputs` for columns.

    A single output goes without its name. Names that end in `_bytes` are base64.

    Raises:
        RestError: 400, outputs that do not fit the row format (no batch axis, unequal sizes).
    """
    columns = {name: _json_values(name, outputs[name]) for name in sorted(outputs)}
    if not columns:
        raise RestError(400, "Cannot convert empty tensor map to JSON")
    single = next(iter(columns)) if len(columns) == 1 else None
    if not rows:
        return _dump({"outputs": columns[single] if single is not None else columns})
    _check_batch(outputs)
    if single is not None:
        lines = columns[single]
    else:
        lines = [
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ]
    inside = ",".join(f"\n    {_text(line)}" for line in lines)
    return f'{{\n  "predictions": [{inside}\n  ]\n}}\n'.encode()


def encode_error(message: str) -> bytes:
    """Return `{"error": message}` as a response body."""
    return _dump({"error": message})


def _from_instances(instances: Any, specs: Mapping[str, TensorSpec]) -> dict[str, np.ndarray]:
    if not isinstance(instances, list):
        raise RestError(
            400, f"JSON Value: {_show(instances)} Excepting 'instances' to be an list/array"
        )
    if not instances:
        raise RestError(400, "JSON Value: [] No values in 'instances' array")
    if not isinstance(instances[0], dict) and len(specs) > 1:
        raise RestError(
            400,
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map",
        )
    named = _is_named(instances[0])
    if not named and len(specs) > 1:
        raise RestError(400, f"instances need all of the named inputs: {','.join(specs)}")
    columns: dict[str, _Column] = {name: _Column(spec) for name, spec in specs.items()}
    for index, instance in enumerate(instances):
        where = f"Failed to process element: {index}"
        if named != _is_named(instance):
            expected = (
                "Expecting object but got list"
                if named
                else ("Expecting value/list but got object")
            )
            raise RestError(400, f"{expected} at item {index} of input list")
        items = instance if named else {next(iter(specs)): instance}
        for name, value in items.items():
            key = f" key: {name}" if named else ""
            try:
                if name not in columns:
                    raise RestError(400, f"JSON object: does not have named input: {name}")
                columns[name].add(value)
            except RestError as error:
                message = f"{where}{key} of 'instances' list. Error: {error.message}"
                raise RestError(error.status, message) from None
        if items.keys() != columns.keys():
            raise RestError(
                400,
                f"{where} of 'instances' list. JSON object: {_show(instance)} keys must be "
                f"equal to: {','.join(specs)}",
            )
    return {name: column.array(len(instances)) for name, column in columns.items()}


def _from_inputs(value: Any, specs: Mapping[str, TensorSpec]) -> dict[str, np.ndarray]:
    if not _is_named(value):
        if len(specs) > 1:
            raise RestError(
                400,
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map",
            )
        value = {next(iter(specs)): value}
    arrays = {}
    for name, spec in specs.items():
        if name not in value:
            raise RestError(400, f"Missing named input: {name} in 'inputs' object.")
        column = _Column(spec)
        column.add(value[name])
        arrays[name] = column.array()
    return arrays


class _Column:
    """Collects the values of one input, all of one shape."""

    def __init__(self, spec: TensorSpec):
        if spec.dtype not in _TYPES:
            raise RestError(501, f"Conversion of JSON values to type: {spec.dtype}")
        self.dtype = spec.dtype
        self.shape: tuple[int, ...] | None = None
        self.values: list[Any] = []

    def add(self, value: Any) -> None:
        shape = _shape(value)
        if len(shape) > _DEEPEST:
            raise RestError(400, f"JSON Parse error: more than {_DEEPEST} lists in each other")
        before = len(self.values)
        self._fill(value, shape, 0)
        size = len(self.values) - before
        if self.shape is None:
            self.shape = shape
        elif math.prod(self.shape) != size:
            text = f"Expecting tensor size: {math.prod(self.shape)} but got: {size}"
            raise RestError(400, text)
        elif self.shape != shape:
            raise RestError(400, f"Expecting shape {list(self.shape)} but got: {list(shape)}")

    def array(self, *batch: int) -> np.ndarray:
        numpy_type = _TYPES[self.dtype][0]
        flat = np.empty(len(self.values), numpy_type)
        flat[:] = self.values
        return flat.reshape((*batch, *(self.shape or ())))

    def _fill(self, value: Any, shape: tuple[int, ...], level: int) -> None:
        if not isinstance(value, list):
            if level != len(shape):
                raise RestError(
                    400,
                    f"JSON Value: {_show(value)} found at incorrect level: {level + 1} in the "
                    f"JSON DOM. Expected at level: {len(shape)}",
                )
            self.values.append(self._convert(value))
            return
        if level >= len(shape):
            raise RestError(
                400, f"Encountered list at unexpected level: {level} expected < {len(shape)}"
            )
        if len(value) != shape[level]:
            raise RestError(
                400,
                f"Encountered list at unexpected size: {len(value)} at level: {level} "
                f"expected size: {shape[level]}",
            )
        for item in value:
            self._fill(item, shape, level + 1)

    def _convert(self, value: Any) -> Any:
        converted = _TYPES[self.dtype][1](value)
        if converted is None:
            raise RestError(
                400,
                f"JSON Value: {_show(value)} Type: {_json_type(value)} is not of expected type: "
                f"{self.dtype}",
            )
        return converted


def _shape(value: Any) -> tuple[int, ...]:
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return tuple(shape)


def _integer(low: int, high: int) -> Callable[[Any], int | None]:
    return lambda value: value if type(value) is int and low <= value <= high else None


def _decimal(numpy_type: type[np.floating]) -> Callable[[Any], float | None]:
    info = np.finfo(numpy_type)
    largest_integer = 2 ** (info.nmant + 1) - 1

    def convert(value: Any) -> float | None:
        if type(value) not in (int, float):
            return None
        exact = abs(value) <= (largest_integer if type(value) is int else float(info.max))
        if not exact and (type(value) is int or math.isfinite(value)):
            kind = "float" if numpy_type is np.float32 else "double"
            raise RestError(
                400,
                f"Cannot convert JSON value: {_show(value)} to {kind} without loss of precision.",
            )
        return float(value)

    return convert


def decode_string(value: Any) -> bytes | None:
    """Return a JSON string, or what its base64 form holds; None where it is neither."""
    if isinstance(value, str):
        try:
            return value.encode("utf-8")
        except UnicodeEncodeError:
            text = "JSON Parse error: The surrogate pair in string is invalid."
            raise RestError(400, text) from None
    if not isinstance(value, dict):
        return None
    if not _is_base64(value):
        text = f"JSON Value: {_show(value)} not formatted correctly for base64 data"
        raise RestError(400, text)
    encoded = "".join(value["b64"].split()).rstrip("=")
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise RestError(400, "Unable to base64 decode") from None


# dtype -> (NumPy type, JSON value to Python value or None when it has the wrong type).
_TYPES: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "string": (object, decode_string),
    "bool": (np.bool_, lambda value: value if isinstance(value, bool) else None),
    "float": (np.float32, _decimal(np.float32)),
    "double": (np.float64, _decimal(np.float64)),
    **{
        name: (np.dtype(name), _integer(int(np.iinfo(name).min), int(np.iinfo(name).max)))
        for name in ("int8", "uint8", "int16", "int32", "uint32", "int64", "uint64")
    },
}


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _check_shape(name: str, array: np.ndarray, spec: TensorSpec) -> None:
    if not spec.accepts(array.shape):
        raise RestError(
            400,
            f"Input {name} has shape {list(array.shape)} but the signature takes "
            f"{list(spec.shape or ())} (-1: any size)",
        )


def _check_batch(outputs: Mapping[str, np.ndarray]) -> None:
    batch = None
    for name in sorted(outputs):
        shape = outputs[name].shape
        if not shape:
            raise RestError(400, f"Tensor name: {name} has no shape information ")
        if batch is not None and shape[0] != batch:
            raise RestError(
                400,
                f"Tensor name: {name} has inconsistent batch size: {shape[0]} expecting: {batch}",
            )
        batch = shape[0]


def _json_values(name: str, array: np.ndarray) -> Any:
    kind = array.dtype.kind
    if kind == "O":
        as_base64 = name.endswith(BYTES_SUFFIX)
        flat = np.empty(array.size, object)
        flat[:] = [_json_string(item, as_base64) for item in array.reshape(-1)]
        return flat.reshape(array.shape).tolist()
    if kind == "f" and array.dtype != np.float64:
        # The shortest decimal that reads back as the same float32, not the noise of a float64.
        return array.astype(str).astype(np.float64).tolist()
    if kind in "fiub":
        return array.tolist()
    raise RestError(400, f"Failed to write JSON value for tensor type: {array.dtype}")


def _json_string(value: bytes | str, as_base64: bool) -> Any:
    raw = value.encode("utf-8") if isinstance(value, str) else value
    if as_base64:
        return {"b64": base64.b64encode(raw).decode("ascii")}
    return raw.decode("utf-8", "replace")


def _json_type(value: Any) -> str:
    names = {bool: str(value), str: "String", dict: "Object", list: "Array", type(None): "Null"}
    return names.get(type(value), "Number")


def _show(value: Any) -> str:
    text = _text(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _dump(value: Any) -> bytes:
    return f"{_text(value)}\n".encode("utf-8", "replace")
