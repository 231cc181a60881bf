"""The warm-up records, read by TF Serving's own messages and replayed."""

import json
from importlib import import_module
from typing import Any

import grpc
import pytest
import tensorflow as tf

from llama_keras.serving.server import running_server
from llama_keras.serving.warmup import WARMUP_FILE, write_warmup
from llama_keras.tasks import TextClassifier

prediction_log_pb2: Any = import_module("tensorflow_serving.apis.prediction_log_pb2")
stubs: Any = import_module("tensorflow_serving.apis.prediction_service_pb2_grpc")


def _requests(folder) -> list:
    records = tf.data.TFRecordDataset(str(folder / WARMUP_FILE)).as_numpy_iterator()
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    assert {log.WhichOneof("log_type") for log in logs} == {"predict_log"}
    return [log.predict_log.request for log in logs]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = TextClassifier.from_preset("llama-tiny", labels=["negative", "positive"])
    return model.export(tmp_path_factory.mktemp("saved") / "sentiment")


def test_each_signature_that_the_example_fills_is_replayed_by_a_server(exported):
    requests = _requests(exported)
    manifest = json.loads((exported / "signature.json").read_text())
    inputs = {name: list(known["inputs"]) for name, known in manifest["signatures"].items()}
    filled = {name for name, known in inputs.items() if known == ["text"]}
    assert "serving_default" in filled and "tokens" not in filled
    assert {request.model_spec.signature_name for request in requests} == filled
    (row,) = manifest["example"]["response"]["predictions"]
    with running_server(exported.parent, port=0, grpc_port=0) as server:
        assert server.grpc_url
        with grpc.insecure_channel(server.grpc_url.split("/")[2]) as channel:
            predict = stubs.PredictionServiceStub(channel).Predict
            for request in requests:
                assert request.model_spec.name == "sentiment"
                outputs = predict(request, timeout=60).outputs
                if request.model_spec.signature_name == "serving_default":
                    scores = tf.make_ndarray(outputs["scores"])[0]
                    assert scores.tolist() == pytest.approx(row["scores"], abs=1e-5)


def test_only_signatures_of_just_the_examples_texts_have_records(tmp_path):
    def function(*names, **others):
        specs = [tf.TensorSpec([None], tf.string, name) for name in names]
        specs += [tf.TensorSpec([None], dtype, name) for name, dtype in others.items()]
        return tf.function(lambda *values: {"y": values[0]}, input_signature=specs)

    functions = {
        "pair": function("question", "context"),
        "one": function("question"),
        "with_numbers": function("question", "context", top_k=tf.int32),
        "other": function("question", "text"),
        "numbers": function(x=tf.float32),
    }
    example = {"question": "Où?", "context": "日本 🙂"}
    examples = dict.fromkeys(functions, example)
    write_warmup(tmp_path, name="qa", functions=functions, examples=examples)
    (request,) = _requests(tmp_path)
    assert request.model_spec.signature_name == "pair"
    found = {key: tf.make_ndarray(value)[0].decode() for key, value in request.inputs.items()}
    assert found == example
