import json

import pytest

from llama_keras.errors import InputError
from llama_keras.eval.harness import evaluate
from llama_keras.eval.targets import KerasTarget, RestTarget, SavedModelTarget, open_target


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory):
    from llama_keras.tasks import TextClassifier

    folder = tmp_path_factory.mktemp("runs") / "toy"
    model = TextClassifier.from_preset("llama-tiny", labels=["negative", "positive"])
    model.save(folder / "model.keras")
    return folder


def test_saved_model_answers_and_tells_its_labels(toy_suite, toy_export):
    target = open_target(toy_export)
    assert isinstance(target, SavedModelTarget)
    assert target.labels == ["negative", "positive"]
    assert target.location == str(toy_export / "1")
    assert target.classify(["good", "坏"]) == [
        {"label": "positive", "score": 0.75},
        {"label": "negative", "score": 0.75},
    ]
    result = evaluate(toy_suite, model=toy_export / "1")
    assert result.metrics["accuracy"].value == 0.75
    assert result.model["sha256"] == target.fingerprint() != ""


def test_server_gives_the_same_result_as_its_files(tmp_path, toy_suite, toy_export):
    from llama_keras.serving.server import serve_in_background

    outputs = []
    with serve_in_background(toy_export) as url:
        assert isinstance(open_target(url), RestTarget)
        for name, model in (("file", toy_export), ("url", url)):
            evaluate(toy_suite, model=model, batch_size=3, output=tmp_path / name)
            outputs.append((tmp_path / name / "examples.jsonl").read_text())
    assert outputs[0] == outputs[1]
    assert json.loads((tmp_path / "url" / "results.json").read_text())["model"] == {
        "kind": "rest",
        "location": url,
        "sha256": None,
    }


def test_run_directory_is_measured_as_its_model_predicts(toy_suite, run_directory):
    from llama_keras.tasks import TextClassifier

    target = open_target(run_directory)
    assert isinstance(target, KerasTarget)
    assert target.labels == ["negative", "positive"]
    texts = ["A good film.", "不好看"]
    predicted = TextClassifier.load(run_directory / "model.keras").predict(texts)
    for answer, row in zip(target.classify(texts), predicted, strict=True):
        assert answer == {"label": row["label"], "score": pytest.approx(row["score"], abs=1e-6)}
    result = evaluate(toy_suite, model=run_directory / "model.keras")
    assert (result.n, result.model["kind"]) == (4, "keras")
    assert result.model["sha256"] == target.fingerprint()


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="no model at .*absent"):
        open_target(tmp_path / "absent")
    with pytest.raises(InputError, match="saved_model.pb"):
        open_target(tmp_path)


def test_a_server_that_is_not_there_is_refused(toy_suite):
    with pytest.raises(InputError, match="llama-keras serve"):
        evaluate(toy_suite, model="http://127.0.0.1:9/v1/models/toy")


def test_an_export_that_is_no_classifier_is_refused(tmp_path, toy_suite):
    import tensorflow as tf

    class Lower(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
        def lower(self, text):
            return {"lowered": tf.strings.lower(text)}

    module = Lower()
    folder = str(tmp_path / "lower" / "1")
    tf.saved_model.save(module, folder, signatures={"serving_default": module.lower})
    with pytest.raises(InputError, match="no text classifier.*lowered"):
        evaluate(toy_suite, model=folder)
