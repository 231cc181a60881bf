import json

import numpy as np
import pytest
import tensorflow as tf

from llama_keras.errors import InputError
from llama_keras.serving.signatures import SIGNATURES
from llama_keras.tasks import TextClassifier
from tests.serving.fresh_process import (
    TEXT_OPS,
    c_api_answers,
    fresh_answers,
    operations,
    ops_beyond_core,
)

TEXTS = ["A lovely day.", "", "日本 🙂 naïve", "null \x00 byte", "long " * 200]
CLEANING = [
    "strip_html",
    {"name": "normalize", "form": "NFKC"},
    "lower",
    "remove_special_characters",
    "remove_stop_words",
    {"name": "remove_stop_words", "language": "zh"},
    "remove_punctuation",
    "collapse_whitespace",
]
# What is left of the first is the second.
UNCLEAN = {
    "<p>The <b>DAY</b> was ＬＯＮＧ!</p>": "day long",
    "我的目的\u200b是学习 🙂": "目的学习",
    "null \x00 byte, e\u0301": "null byte é",
    "of the": "",
    "": "",
    "\u202eשלום\u200f": "שלום",
    "Day " * 200: ("day " * 200).strip(),
}


@pytest.fixture(scope="module", params=["float32", "mixed_bfloat16"])
def exported(request, tmp_path_factory):
    model = TextClassifier.from_preset(
        "llama-tiny", labels=["negative", "positive"], dtype=request.param, max_sequence_length=64
    )
    folder = model.export(tmp_path_factory.mktemp("saved") / "sentiment")
    expected = model.predict(TEXTS, verbose=0)
    tolerance = {"float32": 1e-5, "mixed_bfloat16": 2e-2}[request.param]
    return model, folder, np.array([list(row["scores"].values()) for row in expected]), tolerance


def test_a_fresh_process_without_our_code_gives_the_same_answers(exported):
    _, folder, expected, tolerance = exported
    found = fresh_answers(folder, {"text": TEXTS})
    assert np.abs(np.array(found["scores"]) - expected).max() < tolerance
    names = np.array(["negative", "positive"])
    assert found["label"] == names[np.array(found["scores"]).argmax(axis=1)].tolist()


def test_the_c_api_gives_the_same_answers_as_tf_serving_would(exported):
    _, folder, expected, tolerance = exported
    found = c_api_answers(folder, {"text": TEXTS})
    assert np.abs(np.array(found["scores"]) - expected).max() < tolerance


def test_tokens_signature_equals_the_model(exported):
    model, folder, _, tolerance = exported
    features = {
        "token_ids": np.array([[5, 6, 7], [8, 9, 0]], "int32"),
        "padding_mask": np.array([[1, 1, 1], [1, 1, 0]], "int32"),
    }
    loaded = tf.saved_model.load(str(folder))
    found = loaded.signatures["tokens"](**{k: tf.constant(v) for k, v in features.items()})
    assert np.abs(found["logits"].numpy() - model.predict(features, verbose=0)).max() < tolerance


def test_only_ops_that_a_stock_server_has(exported):
    _, folder, *_ = exported
    assert ops_beyond_core(folder) <= TEXT_OPS
    assert not {op for op in operations(folder) if "PyFunc" in op}


def test_each_weight_is_written_once(exported):
    model, folder, *_ = exported
    in_memory = sum(weight.numpy().nbytes for weight in (w.value for w in model.weights))
    on_disk = sum(path.stat().st_size for path in (folder / "variables").glob("*.data*"))
    assert on_disk < 1.1 * in_memory + 10_000


def test_manifest_tells_the_contract_with_a_true_answer(exported):
    model, folder, _, tolerance = exported
    manifest = json.loads((folder / "signature.json").read_text(encoding="utf-8"))
    assert manifest["labels"] == model.labels
    assert manifest["signatures"]["serving_default"]["inputs"] == {
        "text": {"dtype": "string", "shape": [None]}
    }
    text = manifest["example"]["request"]["instances"][0]["text"]
    (answer,) = manifest["example"]["response"]["predictions"]
    expected = model.predict([text], verbose=0)[0]
    assert answer["label"] == expected["label"]
    assert abs(answer["score"] - expected["score"]) < tolerance


def test_no_path_of_this_machine_is_in_the_graph(exported):
    _, folder, *_ = exported
    content = (folder / "saved_model.pb").read_bytes()
    assert str(folder).encode() not in content
    assert not list((folder / "assets").glob("*"))


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory):
    """A classifier that cleans, its export, and one of the same weights that does not clean."""
    options = {"labels": ["no", "yes"], "max_sequence_length": 64}
    plain = TextClassifier.from_preset("llama-tiny", **options)
    model = TextClassifier.from_preset("llama-tiny", cleaning=CLEANING, **options)
    model.set_weights(plain.get_weights())
    return model, model.export(tmp_path_factory.mktemp("cleaned") / "name"), plain


def scores_of(model, texts):
    return np.array([list(row["scores"].values()) for row in model.predict(texts, verbose=0)])


def test_a_fresh_process_cleans_as_the_model_does(cleaned):
    model, folder, plain = cleaned
    expected = scores_of(plain, list(UNCLEAN.values()))
    assert np.abs(expected - scores_of(plain, list(UNCLEAN))).max() > 1e-3  # cleaning does matter
    assert np.abs(expected - scores_of(model, list(UNCLEAN))).max() < 1e-5
    found = fresh_answers(folder, {"text": list(UNCLEAN)})
    assert np.abs(expected - np.array(found["scores"])).max() < 1e-5


def test_the_c_api_cleans_as_tf_serving_would(cleaned):
    model, folder, _ = cleaned
    found = c_api_answers(folder, {"text": list(UNCLEAN)})
    expected = scores_of(model, list(UNCLEAN))
    assert np.abs(expected - np.array(found["scores"])).max() < 1e-5


def test_invalid_utf8_is_answered_as_its_replacement(cleaned):
    model, folder, _ = cleaned
    classify = tf.saved_model.load(str(folder)).signatures["serving_default"]
    found = classify(text=tf.constant([b"a\xffb \xc3", b"\xed\xa0\x80"]))["scores"].numpy()
    assert np.abs(found - scores_of(model, ["a\ufffdb \ufffd", "\ufffd"])).max() < 1e-5


def test_cleaning_needs_only_ops_that_a_stock_server_has(cleaned):
    assert "NormalizeUTF8" in operations(cleaned[1])
    assert ops_beyond_core(cleaned[1]) <= TEXT_OPS


def test_manifest_tells_the_cleaning(cleaned, exported):
    model, folder, _ = cleaned
    manifest = json.loads((folder / "signature.json").read_text(encoding="utf-8"))
    assert manifest["cleaning"] == model.cleaning.get_config()["steps"]
    assert manifest["cleaning"][1] == {"name": "normalize", "form": "NFKC"}
    assert json.loads((exported[1] / "signature.json").read_text())["cleaning"] == []


def test_versions_count_up_and_nothing_is_overwritten(tmp_path):
    model = TextClassifier.from_preset("llama-tiny", labels=["a", "b"])
    assert model.export(tmp_path / "name").name == "1"
    assert model.export(tmp_path / "name").name == "2"
    with pytest.raises(InputError, match="exists already"):
        model.export(tmp_path / "name" / "2")
    assert sorted(path.name for path in (tmp_path / "name").iterdir()) == ["1", "2"]


def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch):
    model = TextClassifier.from_preset("llama-tiny", labels=["a", "b"])

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        model.export(tmp_path / "name")
    assert list((tmp_path / "name").iterdir()) == []


def test_a_task_without_signatures_is_refused(tmp_path):
    class Other:
        pass

    from llama_keras.serving.export import export_task

    with pytest.raises(InputError, match=str(sorted(SIGNATURES)[0])):
        export_task(Other(), tmp_path / "name")
