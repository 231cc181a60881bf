"""Read what a SavedModel promises (signatures, operations) without importing TensorFlow.

The messages of `saved_model.pb` are declared here with the field numbers of TensorFlow's protos
(tensorflow/core/protobuf/{saved_model,meta_graph}.proto), only the fields that serving needs;
protobuf skips the others. A private descriptor pool keeps them apart from TensorFlow's own.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import DecodeError

from ..errors import InputError

SAVED_MODEL_FILE = "saved_model.pb"
DEFAULT_SIGNATURE = "serving_default"
_PACKAGE = "llama_keras.saved_model"
_SERVE_TAG = "serve"
# DT_* number -> name (tensorflow/core/framework/types.proto).
_DTYPES = {
    0: "INVALID", 1: "FLOAT", 2: "DOUBLE", 3: "INT32", 4: "UINT8", 5: "INT16", 6: "INT8",
    7: "STRING", 8: "COMPLEX64", 9: "INT64", 10: "BOOL", 11: "QINT8", 12: "QUINT8", 13: "QINT32",
    14: "BFLOAT16", 15: "QINT16", 16: "QUINT16", 17: "UINT16", 18: "COMPLEX128", 19: "HALF",
    20: "RESOURCE", 21: "VARIANT", 22: "UINT32", 23: "UINT64", 24: "FLOAT8_E5M2",
    25: "FLOAT8_E4M3FN", 29: "INT4", 30: "UINT4",
}  # fmt: skip
# message -> (field, number, type); a type is a scalar, "enum", a message above it, "[x]" for
# repeated, "{x}" for a map with string keys.
_MESSAGES = {
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
        inputs=_specs(definition.inputs),
        outputs=_specs(definition.outputs),
        method_name=definition.method_name,
        optional=frozenset(definition.defaults),
    )


def _specs(infos: Any) -> dict[str, TensorSpec]:
    return {name: _spec(infos[name]) for name in sorted(infos)}


def _spec(info: Any) -> TensorSpec:
    shape = info.tensor_shape
    sizes = None if shape.unknown_rank else tuple(dim.size for dim in shape.dim)
    dtype = _DTYPES.get(info.dtype, f"type {info.dtype}").lower()
    return TensorSpec(tensor=info.name, dtype=dtype, shape=sizes)


@cache
def _classes() -> dict[str, Any]:
    """Message classes of `_MESSAGES`, in a pool of their own."""
    file = descriptor_pb2.FileDescriptorProto(
        name="llama_keras/saved_model.proto", package=_PACKAGE, syntax="proto3"
    )
    enum = file.enum_type.add(name="DataType")
    for number, name in _DTYPES.items():
        enum.value.add(name=f"DT_{name}", number=number)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field in fields:
            _add_field(message, *field)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _MESSAGES
    }


def _add_field(message: Any, name: str, number: int, kind: str) -> None:
    field_type = descriptor_pb2.FieldDescriptorProto
    field = message.field.add(name=name, number=number, label=field_type.LABEL_OPTIONAL)
    if kind[0] in "[{":
        field.label = field_type.LABEL_REPEATED
    if kind[0] == "{":
        entry = f"{name.capitalize().replace('_d', 'D')}Entry"
        nested = message.nested_type.add(name=entry)
        nested.options.map_entry = True
        _add_field(nested, "key", 1, "string")
        _add_field(nested, "value", 2, kind.strip("{}"))
        kind = f"{message.name}.{entry}"
    scalars = {
        "string": field_type.TYPE_STRING,
        "int64": field_type.TYPE_INT64,
        "bool": field_type.TYPE_BOOL,
    }
    kind = kind.strip("[]")
    if kind in scalars:
        field.type = scalars[kind]
    elif kind == "enum":
        field.type, field.type_name = field_type.TYPE_ENUM, f".{_PACKAGE}.DataType"
    else:
        field.type, field.type_name = field_type.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
