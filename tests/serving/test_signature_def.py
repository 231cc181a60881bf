import pytest

from llama_keras.errors import InputError
from llama_keras.serving.signature_def import TensorSpec, read_saved_model


def test_signatures_equal_what_tensorflow_reads(tiny_model):
    from google.protobuf import json_format
    from tensorflow.core.protobuf import saved_model_pb2

    info = read_saved_model(tiny_model / "3")
    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((tiny_model / "3" / "saved_model.pb").read_bytes())
    graph = proto.meta_graphs[0]
    assert info.metadata == {
        name: json_format.MessageToDict(
            definition,
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )
        for name, definition in graph.signature_def.items()
    }
    nodes = [*graph.graph_def.node]
    nodes += [node for function in graph.graph_def.library.function for node in function.node_def]
    assert info.operations == {node.op for node in nodes}
    assert "RegexSplitWithOffsets" in info.operations
    assert info.tensorflow_version == graph.meta_info_def.tensorflow_version


def test_signature_records(tiny_model):
    signatures = read_saved_model(tiny_model / "3").signatures
    assert "__saved_model_init_op" not in signatures
    numbers = signatures["numbers"]
    assert {name: (spec.dtype, spec.shape) for name, spec in numbers.inputs.items()} == {
        "add": ("int32", (-1,)),
        "negate": ("bool", (-1,)),
        "wide": ("int64", (-1,)),
        "x": ("float", (-1, 2)),
    }
    assert signatures["serving_default"].method_name == "tensorflow/serving/predict"


def test_shapes_that_a_spec_accepts():
    spec = TensorSpec(tensor="x:0", dtype="float", shape=(-1, 2))
    assert spec.accepts((0, 2)) and spec.accepts((5, 2))
    assert not spec.accepts((5, 3)) and not spec.accepts((5,)) and not spec.accepts((5, 2, 1))
    assert TensorSpec(tensor="x:0", dtype="float", shape=None).accepts((1, 2, 3))


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "holds no saved_model.pb"), (b"\xff\xff\xff", "damaged"), (b"", "no graph tagged")],
)
def test_folders_that_are_no_saved_model(tmp_path, content, message):
    if content is not None:
        (tmp_path / "saved_model.pb").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_saved_model(tmp_path)
