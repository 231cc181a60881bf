"""Classify and Regress: TF Serving's calls on `tf.Example` messages.

Rules and messages follow tensorflow_serving/servables/tensorflow/{classifier,regressor}.cc and
util/json_tensor.cc; a message is tensorflow/core/example/example.proto. They need a signature whose
only input is `inputs`, with outputs `classes` and `scores`, or `outputs`.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from .messages import message_classes
from .refused import Refused
from .rest import RestError, decode_string
from .signature_def import Signature

INPUTS = "inputs"
# As `messages.message_classes` takes them.
_TABLE = {
    "BytesList": [("value", 1, "[bytes]")],
    "FloatList": [("value", 1, "[float]")],
    "Int64List": [("value", 1, "[int64]")],
    "Feature": [
        ("bytes_list", 1, "BytesList"),
        ("float_list", 2, "FloatList"),
        ("int64_list", 3, "Int64List"),
    ],
    "Features": [("feature", 1, "{Feature}")],
    "Example": [("features", 1, "Features")],
}


def check_verb(signature: Signature, verb: str) -> None:
    """Checks that a signature can answer `classify` or `regress`.

    Raises:
        Refused: INVALID_ARGUMENT, with TF Serving's reason.
    """
    problem = None
    if len(signature.inputs) != 1:
        problem = "Expected one input Tensor."
    elif verb == "classify" and len(signature.outputs) not in (1, 2):
        problem = f"Expected one or two output Tensors, found {len(signature.outputs)}"
    elif verb == "regress" and len(signature.outputs) != 1:
        problem = "Expected one output Tensor."
    elif INPUTS not in signature.inputs or signature.inputs[INPUTS].dtype != "string":
        kind = "classification" if verb == "classify" else "regression"
        problem = (
            f"No {kind} inputs found in SignatureDef: it takes {', '.join(signature.inputs)}, not "
            "tf.Examples; use predict"
        )
    elif verb == "classify" and not signature.outputs.keys() & {"classes", "scores"}:
        problem = (
            'Expected classification signature outputs to contain at least one of "classes" or '
            f'"scores". It has: {", ".join(signature.outputs)}'
        )
    elif verb == "regress" and "outputs" not in signature.outputs:
        found = ", ".join(signature.outputs)
        problem = f"No regression outputs found in SignatureDef: it has {found}"
    if problem:
        raise Refused("INVALID_ARGUMENT", problem)


def examples_of(document: Mapping[str, Any]) -> list[bytes]:
    """Gives the serialized `tf.Example` of each item of a request's `examples`.

    What `context` holds is part of each of them.

    Raises:
        RestError: 400, with TF Serving's reason.
    """
    context = _example(document["context"]) if "context" in document else b""
    if "examples" not in document:
        raise RestError(
            400, "When method is classify, key 'examples' is expected and was not found"
        )
    examples = document["examples"]
    if not isinstance(examples, list):
        raise RestError(400, "Expecting 'examples' value to be an list/array")
    if not examples:
        raise RestError(400, "'examples' value is an empty array")
    # Messages that stand one behind the other are read as one, the later fields winning.
    return [context + _example(example) for example in examples]


def as_input(examples: Sequence[bytes]) -> dict[str, np.ndarray]:
    """Gives what the graph takes: a vector of serialized messages."""
    array = np.empty(len(examples), object)
    array[:] = examples
    return {INPUTS: array}


def classes_of(outputs: Mapping[str, np.ndarray], rows: int) -> list[list[tuple[str, float]]]:
    """Gives the (label, score) pairs of each row.

    Raises:
        Refused: INVALID_ARGUMENT, the outputs are not of the shape (rows, classes).
    """
    found = {name: outputs[name] for name in ("classes", "scores") if name in outputs}
    shapes = {array.shape for array in found.values()}
    shape = shapes.pop()
    if shapes or len(shape) != 2 or shape[0] != rows:
        sizes = {name: array.shape for name, array in found.items()}
        raise Refused(
            "INVALID_ARGUMENT",
            f"Expected Tensor shape: [{rows} num_classes] but got {sizes}",
        )
    labels = found["classes"].tolist() if "classes" in found else [[b""] * shape[1]] * rows
    scores = found["scores"] if "scores" in found else np.zeros(shape, np.float32)
    return [
        [
            (label.decode("utf-8", "replace"), float(score))
            for label, score in zip(*pair, strict=True)
        ]
        for pair in zip(labels, scores.astype(str).tolist(), strict=True)
    ]


def values_of(outputs: Mapping[str, np.ndarray], rows: int) -> list[float]:
    """Gives the number of each row.

    Raises:
        Refused: INVALID_ARGUMENT, the output is neither of the shape (rows,) nor (rows, 1).
    """
    array = outputs["outputs"]
    if array.shape not in ((rows,), (rows, 1)):
        raise Refused(
            "INVALID_ARGUMENT",
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            f"{list(array.shape)}",
        )
    return [float(value) for value in array.reshape(-1).astype(str)]


def _example(value: Any) -> bytes:
    if not isinstance(value, dict):
        raise RestError(400, f"Example must be JSON object but got JSON {type(value).__name__}")
    example = _classes()["Example"]()
    for name, content in value.items():
        _set_feature(example.features.feature[name], name, content)
    return example.SerializeToString()


# JSON type -> the list of a feature that holds such values.
_LISTS = {bool: "int64_list", int: "int64_list", float: "float_list"}


def _set_feature(feature: Any, name: str, content: Any) -> None:
    kinds = set()
    for item in content if isinstance(content, list) else [content]:
        if isinstance(item, str | dict):
            kind, value = "bytes_list", decode_string(item)
        else:
            kind, value = _LISTS.get(type(item)), item
        if kind is None or value is None:
            shown = type(item).__name__
            raise RestError(400, f"Feature: {name} has element with unexpected JSON type: {shown}")
        kinds.add(kind)
        if len(kinds) > 1:
            raise RestError(
                400, f"Unexpected element type in feature: {name} expecting one type: {kinds}"
            )
        try:
            getattr(feature, kind).value.append(value)
        except (ValueError, OverflowError):
            raise RestError(400, f"Feature: {name} has a number that is too large") from None


@cache
def _classes() -> dict[str, Any]:
    return message_classes("llama_keras.examples", _TABLE)
