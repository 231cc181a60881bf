"""Read what a SavedModel promises (signatures, operations) without importing TensorFlow.

The messages of `saved_model.pb` are declared here with the field numbers of TensorFlow's protos
(tensorflow/core/protobuf/{saved_model,meta_graph}.proto), only the fields that serving needs;
protobuf skips the others.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError

from ..errors import InputError
from .messages import DTYPES, message_classes

SAVED_MODEL_FILE = "saved_model.pb"
DEFAULT_SIGNATURE = "serving_default"
_PACKAGE = "llama_keras.saved_model"
_SERVE_TAG = "serve"
# As `messages.message_classes` takes them.
MESSAGES = {
    "Dim": [("size", 1, "int64"), ("name", 2, "string")],
    "TensorShape": [("dim", 2, "[Dim]"), ("unknown_rank", 3, "bool")],
    "TensorInfo": [("name", 1, "string"), ("dtype", 2, "enum"), ("tensor_shape", 3, "TensorShape")],
    "Default": [("dtype", 1, "enum"), ("tensor_shape", 2, "TensorShape")],
    "SignatureDef": [
        ("inputs", 1, "{TensorInfo}"),
        ("outputs", 2, "{TensorInfo}"),
        ("method_name", 3, "string"),
        ("defaults", 4, "{Default}"),
    ],
    "NodeDef": [("op", 2, "string")],
    "FunctionDef": [("node_def", 3, "[NodeDef]")],
    "Library": [("function", 1, "[FunctionDef]")],
    "GraphDef": [("node", 1, "[NodeDef]"), ("library", 2, "Library")],
    "MetaInfo": [("tags", 4, "[string]"), ("tensorflow_version", 5, "string")],
    "MetaGraph": [
        ("meta_info_def", 1, "MetaInfo"),
        ("graph_def", 2, "GraphDef"),
        ("signature_def", 5, "{SignatureDef}"),
    ],
    "SavedModel": [("meta_graphs", 2, "[MetaGraph]")],
}


@dataclass(frozen=True)
class TensorSpec:
    """One named input or output of a signature.

    Attributes:
        tensor: name of the tensor in the graph, such as `"serving_default_text:0"`.
        dtype: TensorFlow's lower-case name: `"string"`, `"float"`, `"int32"`, ...
        shape: sizes with -1 where open; None when the rank is open.
    """

    tensor: str
    dtype: str
    shape: tuple[int, ...] | None

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Say whether an array of this shape may be fed."""
        if self.shape is None:
            return True
        sizes = zip(self.shape, shape, strict=False)
        return len(shape) == len(self.shape) and all(w in (-1, n) for w, n in sizes)


@dataclass(frozen=True)
class Signature:
    """A serving signature: names to tensors, sorted by name; `optional` inputs have a default."""

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    method_name: str = "tensorflow/serving/predict"
    optional: frozenset[str] = frozenset()


@dataclass(frozen=True)
class SavedModelInfo:
    """What a SavedModel folder holds.

    Attributes:
        path: the folder with `saved_model.pb`.
        signatures: serving signatures by name.
        operations: every op type in the graph and its functions.
        tensorflow_version: the TensorFlow that wrote it.
        metadata: the signatures as TF Serving's metadata call prints them.
    """

    path: Path
    signatures: dict[str, Signature]
    operations: frozenset[str]
    tensorflow_version: str
    metadata: dict[str, Any]


def read_saved_model(directory: str | Path) -> SavedModelInfo:
    """Return the signatures and operations of a SavedModel folder.

    Args:
        directory: folder that holds `saved_model.pb`.

    Raises:
        InputError: there is no `saved_model.pb`, it is damaged, or holds no graph for serving.
    """
    path = Path(directory)
    file = path / SAVED_MODEL_FILE
    if not file.is_file():
        raise InputError(f"{path} holds no {SAVED_MODEL_FILE}; give the folder of a SavedModel.")
    saved_model = _classes()["SavedModel"]()
    try:
        saved_model.ParseFromString(file.read_bytes())
    except DecodeError as error:
        raise InputError(f"{file} is damaged ({error}); export the model again.") from None
    for graph in saved_model.meta_graphs:
        if _SERVE_TAG in graph.meta_info_def.tags:
            return _describe(path, graph)
    raise InputError(f"{file} holds no graph tagged {_SERVE_TAG!r}; export the model for serving.")


def _describe(path: Path, graph: Any) -> SavedModelInfo:
    functions = graph.graph_def.library.function
    operations = {node.op for node in graph.graph_def.node}
    operations.update(node.op for function in functions for node in function.node_def)
    names = sorted(name for name in graph.signature_def if not name.startswith("__"))
    return SavedModelInfo(
        path=path,
        signatures={name: _signature(graph.signature_def[name]) for name in names},
        operations=frozenset(operations),
        tensorflow_version=graph.meta_info_def.tensorflow_version,
        metadata={
            name: json_format.MessageToDict(
                definition,
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
            for name, definition in sorted(graph.signature_def.items())
        },
    )


def _signature(definition: Any) -> Signature:
    return Signature(
        inputs=specs_of(definition.inputs),
        outputs=specs_of(definition.outputs),
        method_name=definition.method_name,
        optional=frozenset(definition.defaults),
    )


def specs_of(infos: Any) -> dict[str, TensorSpec]:
    """Return what a map of `TensorInfo` messages says, sorted by name."""
    return {name: _spec(infos[name]) for name in sorted(infos)}


def _spec(info: Any) -> TensorSpec:
    shape = info.tensor_shape
    sizes = None if shape.unknown_rank else tuple(dim.size for dim in shape.dim)
    dtype = DTYPES.get(info.dtype, f"type {info.dtype}").lower()
    return TensorSpec(tensor=info.name, dtype=dtype, shape=sizes)


@cache
def _classes() -> dict[str, Any]:
    return message_classes(_PACKAGE, MESSAGES)
