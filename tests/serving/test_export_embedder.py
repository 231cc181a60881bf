import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from llama_keras.serving.signature_def import read_saved_model
from llama_keras.tasks import Embedder

TEXTS = ["A LOVELY day.", "", "日本 🙂 naïve", "null \x00 byte", "long " * 60, "今天天气很好"]
FRESH = """
import json, sys
import tensorflow as tf, tensorflow_text
model = tf.saved_model.load(sys.argv[1])
out = model.signatures["serving_default"](text=tf.constant(json.loads(sys.argv[2])))
assert "llama_keras" not in sys.modules
print(json.dumps({name: value.numpy().tolist() for name, value in out.items()}))
"""


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


def run(*arguments):
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_fresh_process_without_our_code_gives_the_same_vectors(exported):
    _, folder, expected = exported
    found = run("-c", FRESH, str(folder), json.dumps(TEXTS))
    assert list(found) == ["embedding"]
    assert np.abs(np.array(found["embedding"]) - expected).max() < 1e-5


def test_the_c_api_gives_the_same_vectors_as_tf_serving_would(exported, tmp_path):
    _, folder, expected = exported
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"text": TEXTS}))
    command = ("-m", "llama_keras.serving.c_api", str(folder), "--inputs", str(request))
    found = run(*command, "--signature", "embed")
    assert np.abs(np.array(found["outputs"]["embedding"]) - expected).max() < 1e-5


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


def test_the_graph_calls_no_python(exported):
    assert not {op for op in read_saved_model(exported[1]).operations if "PyFunc" in op}
