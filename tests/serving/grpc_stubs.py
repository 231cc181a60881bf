"""TF Serving's own generated gRPC code, and requests made with it."""

from importlib import import_module
from typing import Any

import tensorflow as tf


def api(name: str) -> Any:
    """Generated code, whose names a type checker cannot see."""
    return import_module(f"tensorflow_serving.apis.{name}")


def predict_request(signature="", model="tiny", version=None, label="", outputs=(), **inputs):
    request = api("predict_pb2").PredictRequest(output_filter=outputs)
    request.model_spec.name, request.model_spec.signature_name = model, signature
    if version is not None:
        request.model_spec.version.value = version
    if label:
        request.model_spec.version_label = label
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request
