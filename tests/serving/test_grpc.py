"""TF Serving's own gRPC stubs against our server, and our client against it, too."""

from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llama_keras.errors import InputError
from llama_keras.serving.client import Client
from llama_keras.serving.grpc_messages import messages
from llama_keras.serving.server import running_server
from llama_keras.serving.tensor_proto import fill_tensor, read_tensor
from tests.serving.grpc_stubs import api, predict_request

get_model_metadata_pb2: Any = api("get_model_metadata_pb2")
get_model_status_pb2: Any = api("get_model_status_pb2")
model_service_pb2_grpc: Any = api("model_service_pb2_grpc")
predict_pb2: Any = api("predict_pb2")
prediction_service_pb2_grpc: Any = api("prediction_service_pb2_grpc")
CODE = grpc.StatusCode


@pytest.fixture(scope="module")
def server(tiny_model):
    with running_server(tiny_model, port=0, grpc_port=0, max_request_bytes=20_000) as server:
        yield server


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.grpc_url.split("/")[2]) as channel:
        yield channel


@pytest.fixture(scope="module")
def predict(channel):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def call(*arguments, **inputs):
        return stub.Predict(predict_request(*arguments, **inputs), timeout=30)

    return call


@pytest.fixture(scope="module")
def client(server):
    with Client(server.grpc_url, timeout=30) as client:
        yield client


def test_tf_serving_s_own_stub_is_answered(predict):
    answer = predict("classify", text=["so good", "dull"])
    found = {name: tf.make_ndarray(value).tolist() for name, value in answer.outputs.items()}
    assert found == {
        "label": [b"positive", b"negative"],
        "score": [0.75, 0.875],
        "scores": [[0.25, 0.75], [0.875, 0.125]],
    }
    spec = answer.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("tiny", 3, "classify")


def test_all_types_of_a_signature_and_an_output_filter(predict, client):
    inputs = {
        "x": np.array([[1, 2], [3, 4]], "float32"),
        "add": np.array([10, 20], "int32"),
        "wide": np.array([2**40, -1], "int64"),
        "negate": np.array([False, True]),
    }
    answer = predict("numbers", outputs=["wide", "total"], version=3, **inputs)
    assert sorted(answer.outputs) == ["total", "wide"]
    assert tf.make_ndarray(answer.outputs["total"]).tolist() == [13.0, -27.0]
    own = client.run("numbers", inputs)
    assert own["wide"] == [2**40 + 1, 0]
    assert own["flag"] == [True, False]


def test_values_that_are_written_once_stand_for_all(predict, channel):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "tiny", "logarithm"
    tensor = request.inputs["x"]
    tensor.dtype = tf.float32.as_datatype_enum
    tensor.tensor_shape.dim.add(size=3)
    tensor.float_val.append(1.0)
    answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request)
    assert tf.make_ndarray(answer.outputs["y"]).tolist() == [0.0, 0.0, 0.0]


def test_metadata_and_status_are_those_of_tf_serving(channel, tiny_model):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "tiny"
    answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).GetModelMetadata(request)
    table = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(table)
    from tensorflow.python.saved_model import loader_impl

    (graph,) = loader_impl.parse_saved_model(str(tiny_model / "3")).meta_graphs
    assert table.signature_def["numbers"] == graph.signature_def["numbers"]
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "tiny"
    (version,) = (
        model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status).model_version_status
    )
    assert version.version == 3
    assert version.state == get_model_status_pb2.ModelVersionStatus.State.AVAILABLE


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ({"signature": "poem", "text": ["x"]}, CODE.FAILED_PRECONDITION, '"poem" not found'),
        ({"model": "other", "text": ["x"]}, CODE.NOT_FOUND, "Latest(other)"),
        ({"version": 9, "text": ["x"]}, CODE.NOT_FOUND, "Specific(tiny, 9)"),
        ({"label": "stable", "text": ["x"]}, CODE.INVALID_ARGUMENT, "version label: stable"),
        ({"model": "", "text": ["x"]}, CODE.INVALID_ARGUMENT, "Missing ModelSpec"),
        ({}, CODE.INVALID_ARGUMENT, "input size does not match signature: 0!=1"),
        ({"text": ["x"], "more": ["y"]}, CODE.INVALID_ARGUMENT, "2!=1"),
        ({"text": [1.0]}, CODE.INVALID_ARGUMENT, "expected string"),
        ({"text": "x"}, CODE.INVALID_ARGUMENT, "of the shape ()"),
        ({"text": ["x"], "outputs": ["poem"]}, CODE.INVALID_ARGUMENT, "alias not found"),
        (
            {"signature": "pick", "index": np.array([5], "int32")},
            CODE.INVALID_ARGUMENT,
            "too large",
        ),
        ({"text": ["x" * 30_000]}, CODE.RESOURCE_EXHAUSTED, "larger than max"),
    ],
)
def test_what_cannot_be_answered_has_tf_serving_s_code(predict, arguments, code, reason):
    with pytest.raises(grpc.RpcError) as caught:
        predict(**arguments)
    assert caught.value.code() is code  # type: ignore[attr-defined]
    assert reason in caught.value.details()  # type: ignore[attr-defined]


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=80))
def test_malformed_bytes_are_refused_and_the_server_lives(channel, client, junk):
    call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"\x0a\x06\x0a\x04tiny" + junk, timeout=10)
    assert caught.value.code() is not CODE.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
    assert client.versions() == [3]


TYPES = {
    "bool": "bool", "float": "float32", "double": "float64", "int8": "int8", "uint8": "uint8",
    "int16": "int16", "int32": "int32", "int64": "int64", "uint32": "uint32", "uint64": "uint64",
}  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from(list(TYPES)), st.lists(st.integers(0, 3), max_size=3))
def test_tensors_survive_both_ways_beside_tensorflow(data, name, shape):
    array = data.draw(arrays(TYPES[name], tuple(shape)))
    ours = messages()["TensorProto"]()
    fill_tensor(ours, array, dtype=name)
    theirs = tf.make_tensor_proto(array)
    read = type(theirs).FromString(ours.SerializeToString())
    np.testing.assert_array_equal(tf.make_ndarray(read), array)
    for proto in (ours, messages()["TensorProto"].FromString(theirs.SerializeToString())):
        found = read_tensor(proto)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"dtype": 8}, "complex64 cannot be read"),
        ({"dtype": 1, "shape": [2], "tensor_content": b"123"}, "does not have 3 bytes"),
        ({"dtype": 1, "shape": [1], "float_val": [1.0, 2.0]}, "does not have 2 values"),
        ({"dtype": 1, "shape": [2]}, "does not have 0 values"),
        ({"dtype": 1, "shape": [-1]}, "is not whole"),
        ({"dtype": 3, "shape": [2**33], "int_val": [1]}, "too large for 1 values"),
    ],
)
def test_tensors_that_are_not_whole_are_refused(fields, reason):
    proto = messages()["TensorProto"]()
    for size in fields.pop("shape", []):
        proto.tensor_shape.dim.add(size=size)
    for name, value in fields.items():
        getattr(proto, name).extend(value) if isinstance(value, list) else setattr(
            proto, name, value
        )
    with pytest.raises(InputError, match=reason):
        read_tensor(proto)


def test_a_taken_port_is_told(server, tiny_model):
    port = int(server.grpc_url.split(":")[2].split("/")[0])
    with pytest.raises(InputError, match="choose another --grpc-port"):
        with running_server(tiny_model, port=0, grpc_port=port):
            pass
