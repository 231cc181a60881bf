"""Warm-up records: what TF Serving asks of a version before it answers others.

The first request of a shape is slow, for its graph is optimized then; the server replays the file
`assets.extra/tf_serving_warmup_requests`, a TFRecord of `PredictionLog` messages
(tensorflow_serving/apis/prediction_log.proto), so that no user waits for that.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from llama_keras.serving.grpc_messages import messages, serialized
from llama_keras.serving.tensor_proto import fill_tensor

WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"


def write_warmup(
    folder: Path,
    *,
    name: str,
    functions: Mapping[str, Callable],
    examples: Mapping[str, Mapping[str, str]],
) -> None:
    """Writes one record for each signature that takes its example's texts and nothing else.

    Args:
        folder: of `saved_model.pb`.
        name: the model's name; the server knows which model it loads and does not read it.
        functions: signature name to its `tf.function` with a fixed input signature.
        examples: signature name to texts by the names of the inputs; a name that is not there is
            not warmed.
    """
    file = folder / WARMUP_FILE
    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as writer:
        for signature, example in examples.items():
            specs = functions[signature].input_signature
            if {spec.name for spec in specs if spec.dtype == tf.string} != example.keys():
                continue
            if len(specs) == len(example):
                writer.write(_record(name, signature, example))


def _record(name: str, signature: str, example: Mapping[str, str]) -> bytes:
    log = messages()["PredictionLog"]()
    request = log.predict_log.request
    request.model_spec.name, request.model_spec.signature_name = name, signature
    for key, text in example.items():
        fill_tensor(request.inputs[key], np.array([text.encode()], object), dtype="string")
    return serialized(log)
