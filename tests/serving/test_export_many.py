import json

import keras
import numpy as np
import pytest

from llama_keras.errors import InputError
from llama_keras.serving.export_many import export_many
from llama_keras.serving.manifest import read_manifest
from llama_keras.tasks import TextClassifier, TokenClassifier
from tests.marks import slow
from tests.serving.fresh_process import TEXT_OPS, c_api_answers, fresh_answers, ops_beyond_core

TEXTS = ["A lovely day in Rome.", "", "日本 🙂"]
LABELS = ["negative", "positive"]


def classifier(seed: int = 0):
    keras.utils.set_random_seed(seed)
    return TextClassifier.from_preset("llama-tiny", labels=LABELS, max_sequence_length=64)


@pytest.fixture(scope="module")
def heads():
    mood = classifier()
    names = TokenClassifier(
        backbone=mood.backbone,
        tokenizer=mood.tokenizer,
        labels=["PER", "LOC"],
        max_sequence_length=64,
    )
    return {"mood": mood, "names": names}


@pytest.fixture(scope="module")
def exported(heads, tmp_path_factory):
    scores = {"mood": {"test": {"accuracy": 0.75, "n": 4}}}
    folder = tmp_path_factory.mktemp("many") / "both"
    return export_many(heads, folder, evaluation=scores)


def size_of(folder) -> int:
    return sum(file.stat().st_size for file in (folder / "variables").iterdir())


def test_the_backbone_is_there_once(exported, heads):
    parameters = {id(v): v for head in heads.values() for v in head.weights}.values()
    wanted = sum(int(np.prod(v.shape)) * 4 for v in parameters)
    assert exported.name == "1"
    assert wanted <= size_of(exported) < 1.01 * wanted + 20_000  # and the table of their names


def test_each_head_answers_as_its_model_in_another_process(exported, heads):
    found = fresh_answers(exported, {"text": TEXTS}, signature="mood")
    expected = [list(row["scores"].values()) for row in heads["mood"].predict(TEXTS, verbose=0)]
    np.testing.assert_allclose(found["scores"], expected, atol=1e-5)
    tagged = c_api_answers(exported, {"text": TEXTS}, signature="names")
    expected = heads["names"].predict(TEXTS)
    assert [int(n) for n in tagged["count"]] == [len(row) for row in expected]


def test_the_first_head_is_the_default_and_ops_are_stock(exported):
    default = fresh_answers(exported, {"text": TEXTS})
    assert default == fresh_answers(exported, {"text": TEXTS}, signature="mood")
    assert ops_beyond_core(exported) <= TEXT_OPS


def test_the_manifest_tells_of_each_head(exported):
    manifest = read_manifest(exported)
    assert list(manifest.heads) == ["mood", "names"]
    assert set(manifest.signatures) == {
        "serving_default", "mood", "mood_tokens", "names", "names_tokens"
    }  # fmt: skip
    assert manifest.heads["mood"]["labels"] == LABELS
    assert manifest.heads["mood"]["evaluation"]["test"]["accuracy"] == 0.75
    assert "evaluation" not in manifest.heads["names"]
    content = json.loads((exported / "signature.json").read_text())
    assert content["bytes"]["saved_model.pb"] == (exported / "saved_model.pb").stat().st_size


def test_models_loaded_one_by_one_share_equal_weights(tmp_path):
    first, second = classifier(), classifier()
    assert first.backbone is not second.backbone
    before = second.predict(TEXTS, verbose=0)
    alone = first.export(tmp_path / "alone")
    both = export_many({"a": first, "b": second}, tmp_path / "both")
    assert size_of(both) < 1.05 * size_of(alone) + 20_000
    assert second.predict(TEXTS, verbose=0) == before
    values = {id(v.value) for v in first.weights} & {id(v.value) for v in second.weights}
    assert not values  # each has its own again


@pytest.mark.parametrize("dtype", ["bfloat16", *slow("int8")])
@pytest.mark.parametrize("shared", [True, False])
def test_a_backbone_that_is_stored_small_is_there_once(tmp_path, dtype, shared):
    small = {"labels": LABELS, "max_sequence_length": 64, "backbone_arguments": {"num_layers": 1}}

    def made():
        keras.utils.set_random_seed(0)
        return TextClassifier.from_preset("llama-tiny", **small)

    mood = made()
    second = mood if shared else made()
    other = TextClassifier(
        backbone=second.backbone, tokenizer=mood.tokenizer, labels=["a", "b", "c"]
    )
    before = [weight.numpy() for weight in (*mood.weights, *other.weights)]
    both = export_many({"mood": mood, "letter": other}, tmp_path / "both", dtype=dtype)
    alone = mood.export(tmp_path / "alone", dtype=dtype)
    assert size_of(both) < 1.02 * size_of(alone) + 5000
    for weight, value in zip((*mood.weights, *other.weights), before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)
    found = c_api_answers(both, {"text": TEXTS}, signature="mood")["scores"]
    np.testing.assert_allclose(found, c_api_answers(alone, {"text": TEXTS})["scores"], atol=1e-5)
    found = c_api_answers(both, {"text": TEXTS}, signature="letter")["scores"]
    expected = [list(row["scores"].values()) for row in other.predict(TEXTS, verbose=0)]
    np.testing.assert_allclose(found, expected, atol=0.05)
    manifest = json.loads((both / "signature.json").read_text())
    assert manifest["stored_dtype"] == dtype
    assert manifest["weights"]["parameters"] < 1.01 * mood.count_params() + 1000


def test_what_cannot_share_is_refused(heads, tmp_path):
    other = classifier()
    kernel = other.backbone.weights[1]
    kernel.assign(kernel.value + 1.0)
    with pytest.raises(InputError, match=r"'other' has other weights than that of 'mood'.*linear"):
        export_many({"mood": heads["mood"], "other": other}, tmp_path / "x")
    with pytest.raises(InputError, match="cannot name a signature"):
        export_many({"a b": other}, tmp_path / "x")
    with pytest.raises(InputError, match="Two tasks give the signature 'mood_tokens'"):
        export_many({"mood": heads["mood"], "mood_tokens": heads["names"]}, tmp_path / "x")
    with pytest.raises(InputError, match="no task 'b'"):
        export_many({"a": other}, tmp_path / "x", settings={"b": {}})
    with pytest.raises(InputError, match="no task to export"):
        export_many({}, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
