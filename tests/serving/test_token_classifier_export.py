import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from llama_keras.tasks import TokenClassifier
from tests.serving.fresh_process import (
    TEXT_OPS,
    c_api_answers,
    fresh_answers,
    operations,
    ops_beyond_core,
)

TEXTS = [
    "Ada Lovelace was born in London.",
    "",
    "今天 in 北京 🙂 naïve e\u0301",
    " \n ",
    "null \x00 byte \u202eשלום\u200b",
    "Ada in Rome, " * 40,
]
CASES = {
    "dense, causal, float32": {},
    "crf, IOBES, bidirectional": {
        "head": "crf",
        "scheme": "IOBES",
        "backbone_arguments": {"attention_mask": "bidirectional"},
        "cleaning": ["lower"],
    },
}


@pytest.fixture(scope="module", params=CASES)
def exported(request, tmp_path_factory):
    keras.utils.set_random_seed(0)
    model = TokenClassifier.from_preset(
        "llama-tiny", labels=["LOC", "名"], max_sequence_length=48, **CASES[request.param]
    )
    # Random weights, but such that entities of several units are found.
    generator = np.random.default_rng(0)
    for layer in (model.head, model.chain):
        layer.set_weights([generator.normal(size=w.shape) * 0.5 for w in layer.get_weights()])
    if model.head_kind == "crf":
        model.chain.set_weights([w / model.chain.scale for w in model.chain.get_weights()])
    folder = model.export(tmp_path_factory.mktemp("saved") / "entities")
    return model, folder, model.predict(TEXTS, verbose=0)


def check(outputs, expected, texts=TEXTS):
    assert outputs["count"] == [len(row) for row in expected]
    assert sum(outputs["count"]) > 10
    for row, answers in enumerate(expected):
        for name, key in {
            "entity": "text",
            "label": "label",
            "start": "start",
            "end": "end",
        }.items():
            values = outputs[name][row]
            assert values[: len(answers)] == [answer[key] for answer in answers]
            assert set(values[len(answers) :]) <= {"", -1}
        scores = [answer["score"] for answer in answers]
        np.testing.assert_allclose(outputs["score"][row][: len(scores)], scores, atol=1e-5)


def test_a_fresh_process_without_our_code_gives_the_same_answers(exported):
    _, folder, expected = exported
    assert any(" " in entity["text"].strip() for row in expected for entity in row)
    check(fresh_answers(folder, {"text": TEXTS}), expected)


def test_the_c_api_gives_the_same_answers_as_tf_serving_would(exported):
    _, folder, expected = exported
    check(c_api_answers(folder, {"text": TEXTS}), expected)


def signature(folder, name="serving_default"):
    # The loaded object owns the tables: keep it.
    loaded = tf.saved_model.load(str(folder))
    return loaded, loaded.signatures[name]


def test_texts_without_entities_and_batches_of_none(exported):
    loaded, tag = signature(exported[1])
    for texts in (["", " "], []):
        found = tag(text=tf.constant(texts, tf.string))
        assert found["count"].numpy().tolist() == [0] * len(texts)
        assert all(x.shape.as_list() == [len(texts), 0] for k, x in found.items() if k != "count")


def test_invalid_utf8_is_answered_as_its_replacement(exported):
    model, folder, _ = exported
    loaded, tag = signature(folder)
    found = tag(text=tf.constant([b"Ada\xff in Rome \xc3"]))
    (expected,) = model.predict(["Ada\ufffd in Rome \ufffd"], verbose=0)
    assert found["start"].numpy()[0].tolist() == [entity["start"] for entity in expected]
    assert [x.decode() for x in found["entity"].numpy()[0]] == [e["text"] for e in expected]


def test_tokens_signature_equals_the_model(exported):
    model, folder, _ = exported
    features = {
        "token_ids": np.array([[5, 6, 7], [8, 9, 0]], "int32"),
        "padding_mask": np.array([[1, 1, 1], [1, 1, 0]], "int32"),
    }
    loaded, tokens = signature(folder, "tokens")
    found = tokens(**{k: tf.constant(v) for k, v in features.items()})["logits"].numpy()
    assert np.abs(found - model.predict(features, verbose=0)).max() < 1e-5


def test_only_ops_that_a_stock_server_has(exported):
    assert ops_beyond_core(exported[1]) <= TEXT_OPS
    assert not {op for op in operations(exported[1]) if "PyFunc" in op}


def test_manifest_tells_the_contract_with_a_true_answer(exported):
    model, folder, _ = exported
    manifest = json.loads((folder / "signature.json").read_text(encoding="utf-8"))
    assert manifest["task"] == "token_classification" and manifest["labels"] == ["LOC", "名"]
    text = manifest["example"]["request"]["instances"][0]["text"]
    (answer,) = manifest["example"]["response"]["predictions"]
    (expected,) = model.predict([text], verbose=0)
    assert answer["count"] == len(expected)
    assert answer["entity"] == [entity["text"] for entity in expected]
