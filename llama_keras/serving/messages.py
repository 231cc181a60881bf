"""Protobuf messages declared as tables, so that neither TensorFlow nor generated code is needed.

A private descriptor pool keeps them apart from TensorFlow's own of the same names.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

Field = tuple[str, int, str]
# DT_* number -> name (tensorflow/core/framework/types.proto).
DTYPES = {
    0: "INVALID", 1: "FLOAT", 2: "DOUBLE", 3: "INT32", 4: "UINT8", 5: "INT16", 6: "INT8",
    7: "STRING", 8: "COMPLEX64", 9: "INT64", 10: "BOOL", 11: "QINT8", 12: "QUINT8", 13: "QINT32",
    14: "BFLOAT16", 15: "QINT16", 16: "QUINT16", 17: "UINT16", 18: "COMPLEX128", 19: "HALF",
    20: "RESOURCE", 21: "VARIANT", 22: "UINT32", 23: "UINT64", 24: "FLOAT8_E5M2",
    25: "FLOAT8_E4M3FN", 29: "INT4", 30: "UINT4",
}  # fmt: skip


def message_classes(package: str, messages: Mapping[str, Sequence[Field]]) -> dict[str, Any]:
    """Gives the classes of messages.

    Args:
        package: a name of their own.
        messages: name to fields (name, number, type). A type is a scalar, "enum" (`DTYPES`), a
            message of the table, "[x]" for repeated, "{x}" for a map with string keys.
    """
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package.replace('.', '/')}.proto", package=package, syntax="proto3"
    )
    enum = file.enum_type.add(name="DataType")
    for number, name in DTYPES.items():
        enum.value.add(name=f"DT_{name}", number=number)
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field in fields:
            _add_field(message, package, *field)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
        for name in messages
    }


_SCALARS = {
    name: getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{name.upper()}")
    for name in (
        *("string", "bytes", "bool", "int32", "int64", "uint32", "uint64", "float", "double"),
    )
}


def _add_field(message: Any, package: str, name: str, number: int, kind: str) -> None:
    field_type = descriptor_pb2.FieldDescriptorProto
    field = message.field.add(name=name, number=number, label=field_type.LABEL_OPTIONAL)
    if kind[0] in "[{":
        field.label = field_type.LABEL_REPEATED
    if kind[0] == "{":
        entry = "".join(part.capitalize() for part in name.split("_")) + "Entry"
        nested = message.nested_type.add(name=entry)
        nested.options.map_entry = True
        _add_field(nested, package, "key", 1, "string")
        _add_field(nested, package, "value", 2, kind.strip("{}"))
        kind = f"{message.name}.{entry}"
    kind = kind.strip("[]")
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    elif kind == "enum":
        field.type, field.type_name = field_type.TYPE_ENUM, f".{package}.DataType"
    else:
        field.type, field.type_name = field_type.TYPE_MESSAGE, f".{package}.{kind}"
