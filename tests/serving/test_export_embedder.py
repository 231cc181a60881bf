import json

import numpy as np
import pytest
import tensorflow as tf

from llama_keras.tasks import Embedder
from tests.serving.fresh_process import c_api_answers, fresh_answers, operations

TEXTS = ["A LOVELY day.", "", "日本 🙂 naïve", "null \x00 byte", "long " * 60, "今天天气很好"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = Embedder.from_preset(
        "llama-tiny",
        dimensions=24,
        layer=1,
        cleaning=["lower"],
        max_sequence_length=64,
        backbone_arguments={"attention_mask": "bidirectional"},
    )
    folder = model.export(tmp_path_factory.mktemp("saved") / "vectors")
    return model, folder, model.predict(TEXTS, verbose=0)


def test_a_fresh_process_without_our_code_gives_the_same_vectors(exported):
    _, folder, expected = exported
    found = fresh_answers(folder, {"text": TEXTS})
    assert list(found) == ["embedding"]
    assert np.abs(np.array(found["embedding"]) - expected).max() < 1e-5


def test_the_c_api_gives_the_same_vectors_as_tf_serving_would(exported):
    _, folder, expected = exported
    found = c_api_answers(folder, {"text": TEXTS}, signature="embed")
    assert np.abs(np.array(found["embedding"]) - expected).max() < 1e-5


def test_tokens_signature_and_manifest(exported):
    model, folder, _ = exported
    features = {
        "token_ids": np.array([[5, 6, 7], [8, 9, 0]], "int32"),
        "padding_mask": np.array([[1, 1, 1], [1, 1, 0]], "int32"),
    }
    tokens = tf.saved_model.load(str(folder)).signatures["tokens"]
    found = tokens(**{name: tf.constant(value) for name, value in features.items()})
    assert np.abs(found["embedding"].numpy() - model.predict(features, verbose=0)).max() < 1e-5
    manifest = json.loads((folder / "signature.json").read_text(encoding="utf-8"))
    assert manifest["task"] == "embedding"
    output = manifest["signatures"]["embed"]["outputs"]["embedding"]
    assert output == {"dtype": "float32", "shape": [None, 24]}
    text = manifest["example"]["request"]["instances"][0]["text"]
    (answer,) = manifest["example"]["response"]["predictions"]
    assert np.abs(np.array(answer["embedding"]) - model.predict(text, verbose=0)[0]).max() < 1e-5


def test_a_server_counts_the_tokens_that_were_read(exported):
    model, folder, _ = exported
    counted = c_api_answers(folder, {"text": TEXTS}, signature="count_tokens")["num_tokens"]
    read = [len(model.tokenizer.encode(text.lower())[:64]) for text in TEXTS]
    assert counted == [max(count, 1) for count in read] and max(read) == 64  # "" is padding


def test_the_graph_calls_no_python(exported):
    assert not {op for op in operations(exported[1]) if "PyFunc" in op}
