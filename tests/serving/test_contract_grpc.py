"""What TF Serving's gRPC implements, request by request, asked by its own stubs.

Sources: servables/tensorflow/predict_util.cc, get_model_metadata_impl.cc and
model_servers/get_model_status_impl.cc of tensorflow/serving.
"""

from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf

from tests.serving.grpc_stubs import api, predict_request

CODE = grpc.StatusCode


@pytest.fixture(scope="module")
def channel(tiny_server):
    with grpc.insecure_channel(tiny_server.grpc_url.split("/")[2]) as channel:
        yield channel


def one_row(**changes):
    row = {
        "x": np.array([[1, 2]], "float32"),
        "add": np.array([3], "int32"),
        "wide": np.array([1], "int64"),
        "negate": np.array([False]),
    }
    return {name: value for name, value in {**row, **changes}.items() if value is not None}


INVALID = CODE.INVALID_ARGUMENT
GRPC_REFUSED = {
    "unknown signature": (
        {"signature": "poem", "text": ["x"]},
        CODE.FAILED_PRECONDITION,
        'Serving signature key "poem" not found.',
    ),
    "unknown model": (
        {"model": "foo", "text": ["x"]},
        CODE.NOT_FOUND,
        "Servable not found for request: Latest(foo)",
    ),
    "unknown version": (
        {"version": 9, "text": ["x"]},
        CODE.NOT_FOUND,
        "Servable not found for request: Specific(tiny, 9)",
    ),
    "unknown label": ({"label": "stable", "text": ["x"]}, INVALID, "version label: stable"),
    "no model": ({"model": "", "text": ["x"]}, INVALID, ""),
    "no inputs": ({}, INVALID, "input size does not match signature: 0!=1"),
    "one input too many": (
        {"text": ["x"], "more": ["y"]},
        INVALID,
        "does not match signature: 2!=1",
    ),
    "one input less": (
        {"signature": "numbers", **one_row(negate=None)},
        INVALID,
        "does not match signature: 3!=4",
    ),
    "unknown input": ({"txt": ["x"]}, INVALID, "txt"),
    "wrong type": ({"text": [1.0]}, INVALID, ""),
    "narrower type": (
        {"signature": "numbers", **one_row(wide=np.array([1], "int32"))},
        INVALID,
        "",
    ),
    "scalar for a batch": ({"text": "x"}, INVALID, ""),
    "wrong size": (
        {"signature": "numbers", **one_row(x=np.zeros([1, 3], "float32"))},
        INVALID,
        "",
    ),
    "unknown output": ({"text": ["x"], "outputs": ["poem"]}, INVALID, "alias not found"),
    "error of the graph": (
        {"signature": "pick", "index": np.array([5], "int32")},
        INVALID,
        "index too large",
    ),
}


@pytest.mark.parametrize(("arguments", "code", "reason"), GRPC_REFUSED.values(), ids=GRPC_REFUSED)
def test_grpc_refuses_with_tf_serving_s_code(channel, arguments, code, reason):
    stub = api("prediction_service_pb2_grpc").PredictionServiceStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(predict_request(**arguments), timeout=30)
    error: Any = caught.value
    assert error.code() is code
    assert reason in error.details() and error.details()


def test_grpc_answers_what_rest_answers(channel):
    stub = api("prediction_service_pb2_grpc").PredictionServiceStub(channel)
    answer = stub.Predict(predict_request(text=["good"], version=3), timeout=30)
    found = {name: tf.make_ndarray(value).tolist() for name, value in answer.outputs.items()}
    assert found == {"label": [b"positive"], "score": [0.75], "scores": [[0.25, 0.75]]}
    spec = answer.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("tiny", 3, "serving_default")
    one = stub.Predict(predict_request("numbers", outputs=["wide"], **one_row()), timeout=30)
    assert list(one.outputs) == ["wide"]
    empty = stub.Predict(predict_request(text=np.zeros([0], object)), timeout=30)
    assert tf.make_ndarray(empty.outputs["scores"]).shape == (0, 2)


@pytest.mark.parametrize(
    ("name", "version", "code", "reason"),
    [
        ("foo", None, CODE.NOT_FOUND, "Could not find any versions of model foo"),
        ("tiny", 9, CODE.NOT_FOUND, "Could not find version 9 of model tiny"),
    ],
)
def test_grpc_status_of_what_is_not_there(channel, name, version, code, reason):
    request = api("get_model_status_pb2").GetModelStatusRequest()
    request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    with pytest.raises(grpc.RpcError) as caught:
        api("model_service_pb2_grpc").ModelServiceStub(channel).GetModelStatus(request, timeout=30)
    error: Any = caught.value
    assert (error.code(), error.details()) == (code, reason)


@pytest.mark.parametrize("fields", [[], ["weights"], ["signature_def", "weights"]])
def test_grpc_metadata_of_other_fields(channel, fields):
    request = api("get_model_metadata_pb2").GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = "tiny"
    with pytest.raises(grpc.RpcError) as caught:
        api("prediction_service_pb2_grpc").PredictionServiceStub(channel).GetModelMetadata(
            request, timeout=30
        )
    error: Any = caught.value
    assert error.code() is INVALID and error.details()
