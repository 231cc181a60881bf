"""A tiny SavedModel with text and numeric signatures, laid out as TF Serving wants it."""

import json
from pathlib import Path
from typing import Any

import pytest

LABELS = ["negative", "positive"]
EXAMPLE = {
    "request": {"instances": ["good film"]},
    "response": {"predictions": [{"label": "positive", "score": 0.75, "scores": [0.25, 0.75]}]},
}


def export_tiny(path: Path) -> None:
    import tensorflow as tf
    import tensorflow_text as tf_text

    class Tiny(tf.Module):
        def __init__(self):
            super().__init__()
            self.labels = tf.constant(LABELS)
            self.weight = tf.Variable(tf.constant(0.5))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
        def classify(self, text):
            good = tf.strings.regex_full_match(text, r"(?s).*good.*")
            positive = tf.where(good, 0.25 + self.weight, 0.25 * self.weight)
            scores = tf.stack([1.0 - positive, positive], axis=1)
            best = tf.argmax(scores, axis=1)
            return {
                "label": tf.gather(self.labels, best),
                "score": tf.reduce_max(scores, axis=1),
                "scores": scores,
            }

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
        def words(self, text):
            lengths: Any = tf_text.regex_split(text, r"\s").row_lengths()
            return {"words": tf.cast(lengths, tf.int32)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "data")])
        def echo(self, data):
            return {"data_bytes": data, "text": tf.strings.lower(data)}

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, 2], tf.float32, "x"),
                tf.TensorSpec([None], tf.int32, "add"),
                tf.TensorSpec([None], tf.int64, "wide"),
                tf.TensorSpec([None], tf.bool, "negate"),
            ]
        )
        def numbers(self, x, add, wide, negate):
            total = tf.reduce_sum(x, axis=1) + tf.cast(add, tf.float32)
            return {
                "flag": tf.logical_not(negate),
                "total": tf.where(negate, -total, total),
                "wide": wide + 1,
            }

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def logarithm(self, x):
            return {"y": tf.math.log(x)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def mean(self, x):
            return {"mean": tf.reduce_mean(x)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, "index")])
        def pick(self, index):
            with tf.control_dependencies([tf.debugging.assert_less(index, 2, "index too large")]):
                return {"label": tf.gather(self.labels, index)}

    model = Tiny()
    names = "words echo numbers logarithm mean pick".split()
    signatures = {"serving_default": model.classify, "classify": model.classify}
    signatures |= {name: getattr(model, name) for name in names}
    tf.saved_model.save(model, str(path), signatures=signatures)
    manifest = {"task": "text_classification", "labels": LABELS, "example": EXAMPLE}
    (path / "signature.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `tiny/` that holds version 3 (a real SavedModel) and an empty version 1."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    export_tiny(folder / "3")
    (folder / "1").mkdir()
    return folder


@pytest.fixture(scope="session")
def tiny_server(tiny_model: Path):
    """A live server of `tiny_model` on loopback, REST (`url`) and gRPC (`grpc_url`)."""
    from llama_keras.serving.server import running_server

    with running_server(tiny_model, port=0, grpc_port=0, max_request_bytes=20_000) as server:
        yield server


@pytest.fixture(scope="session")
def tiny_url(tiny_server):
    """URL of a live server of `tiny_model` on loopback."""
    return tiny_server.url
