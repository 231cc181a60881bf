"""TF Serving's gRPC messages and methods, by the field numbers of its protos.

tensorflow_serving/apis: model.proto, predict.proto, get_model_metadata.proto,
get_model_status.proto, prediction_log.proto, classification.proto, regression.proto, input.proto,
prediction_service.proto, model_service.proto; and gRPC's health.proto.
"""

from functools import cache
from typing import Any

from .messages import message_classes
from .signature_def import MESSAGES
from .tensor_proto import TENSOR_MESSAGES

# Tells the metadata call what is asked for, and names the message that comes.
SIGNATURES = "signature_def"
SIGNATURE_MAP_URL = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
_TABLE = {
    **{name: MESSAGES[name] for name in ("Dim", "TensorShape", "TensorInfo", "Default")},
    "SignatureDef": MESSAGES["SignatureDef"],
    **TENSOR_MESSAGES,
    "Version": [("value", 1, "int64")],
    "ModelSpec": [
        ("name", 1, "string"),
        ("version", 2, "Version"),
        ("signature_name", 3, "string"),
        ("version_label", 4, "string"),
    ],
    "PredictRequest": [
        ("model_spec", 1, "ModelSpec"),
        ("inputs", 2, "{TensorProto}"),
        ("output_filter", 3, "[string]"),
    ],
    "PredictResponse": [("outputs", 1, "{TensorProto}"), ("model_spec", 2, "ModelSpec")],
    "PredictLog": [("request", 1, "PredictRequest")],
    "PredictionLog": [("predict_log", 6, "PredictLog")],
    "Any": [("type_url", 1, "string"), ("value", 2, "bytes")],
    "SignatureDefMap": [("signature_def", 1, "{SignatureDef}")],
    "GetModelMetadataRequest": [
        ("model_spec", 1, "ModelSpec"),
        ("metadata_field", 2, "[string]"),
    ],
    "GetModelMetadataResponse": [("model_spec", 1, "ModelSpec"), ("metadata", 2, "{Any}")],
    "GetModelStatusRequest": [("model_spec", 1, "ModelSpec")],
    "Status": [("error_code", 1, "int32"), ("error_message", 2, "string")],
    "ModelVersionStatus": [("version", 1, "int64"), ("state", 2, "int32"), ("status", 3, "Status")],
    "GetModelStatusResponse": [("model_version_status", 1, "[ModelVersionStatus]")],
    # An example goes to the graph as the bytes that came, so it is not read here.
    "ExampleList": [("examples", 1, "[bytes]")],
    "ExampleListWithContext": [("examples", 1, "[bytes]"), ("context", 2, "bytes")],
    "Input": [
        ("example_list", 1, "ExampleList"),
        ("example_list_with_context", 2, "ExampleListWithContext"),
    ],
    "ClassifyRequest": [("model_spec", 1, "ModelSpec"), ("input", 2, "Input")],
    "Class": [("label", 1, "string"), ("score", 2, "float")],
    "Classifications": [("classes", 1, "[Class]")],
    "ClassificationResult": [("classifications", 1, "[Classifications]")],
    "ClassifyResponse": [("result", 1, "ClassificationResult"), ("model_spec", 2, "ModelSpec")],
    "RegressRequest": [("model_spec", 1, "ModelSpec"), ("input", 2, "Input")],
    "Regression": [("value", 1, "float")],
    "RegressionResult": [("regressions", 1, "[Regression]")],
    "RegressResponse": [("result", 1, "RegressionResult"), ("model_spec", 2, "ModelSpec")],
    "HandleReloadConfigRequestRequest": [("config", 1, "bytes")],
    "HandleReloadConfigRequestResponse": [("status", 1, "Status")],
    "CheckRequest": [("service", 1, "string")],
    "CheckResponse": [("status", 1, "int32")],
}
# health.proto's ServingStatus.
SERVING, NOT_SERVING = 1, 2
# Method -> its service; request and response are METHODRequest and METHODResponse.
METHODS = {
    "Predict": "tensorflow.serving.PredictionService",
    "Classify": "tensorflow.serving.PredictionService",
    "Regress": "tensorflow.serving.PredictionService",
    "GetModelMetadata": "tensorflow.serving.PredictionService",
    "GetModelStatus": "tensorflow.serving.ModelService",
    "HandleReloadConfigRequest": "tensorflow.serving.ModelService",
    "Check": "grpc.health.v1.Health",
}


@cache
def messages() -> dict[str, Any]:
    """Gives the message classes by name."""
    return message_classes("llama_keras.serving", _TABLE)


def serialized(message: Any) -> bytes:
    """Gives a message as it goes over the wire."""
    return message.SerializeToString()
