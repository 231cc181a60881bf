"""Exports of `MaskedLM` and `Denoiser`."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from llama_keras.errors import InputError
from llama_keras.serving import SavedModel
from llama_keras.serving.signatures_denoiser import _with_sentinels
from llama_keras.tasks import Denoiser, MaskedLM, Pretraining
from tests.serving.fresh_process import (
    TEXT_OPS,
    c_api_answers,
    fresh_answers,
    operations,
    ops_beyond_core,
)

MASKED = [
    "The <mask> is fine",
    "one <mask>, two<mask> THREE  <mask>",
    "今天<mask>很好 🙂",
    "null \x00 <mask>" + " long" * 8,
]
CORRUPTED = ["The wether", "", "a <mask> B", "今天🙂", "\x00 " + "long " * 20]
MOST = [4, 1, 9, 2, 30]
TOP_K = 3
# What the manifests tell of the training.
LEARNED = {
    "masked": {
        "objective": {"name": "masked_next_token", "chunk": 256},
        "corruption": {
            "name": "random_masking",
            "rate": 0.15,
            "mask_rate": 0.8,
            "random_rate": 0.1,
            "seed": 0,
        },
    },
    "denoising": {
        "objective": {"name": "denoising", "chunk": 256},
        "corruption": {"name": "random_deletion", "rate": 0.3, "seed": 5},
    },
}


@pytest.fixture(scope="module")
def models():
    """Tiny, random, and sharpened so that no two tokens tie."""
    keras.utils.set_random_seed(1)
    options = {"cleaning": ["lower", "collapse_whitespace"], "max_sequence_length": 64}
    found = {
        "masked": MaskedLM.from_preset("llama-tiny", objective="masked_next_token", **options),
        "denoising": Denoiser.from_preset(
            "llama-tiny", corruption=LEARNED["denoising"]["corruption"], **options
        ),
    }
    for model in found.values():
        for variable in model.backbone.weights:
            if len(variable.shape) > 1:
                variable.assign(variable * 3.0)
    return found


@pytest.fixture(scope="module")
def folders(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    return {
        "masked": models["masked"].export(folder / "masked", top_k=TOP_K),
        "denoising": models["denoising"].export(folder / "denoising", max_new_tokens=20),
    }


@pytest.fixture(scope="module")
def saved(folders):
    return {name: SavedModel(folder) for name, folder in folders.items()}


def plain(outputs):
    """Gives NumPy outputs as lists with strings for bytes."""

    def text(value):
        if isinstance(value, list):
            return [text(item) for item in value]
        return value.decode() if isinstance(value, bytes) else value

    return {name: text(value.tolist()) for name, value in outputs.items()}


def check_fills(found, expected):
    assert found["text"] == [answer["text"] for answer in expected]
    assert found["count"] == [len(answer["fills"]) for answer in expected]
    for row, answer in enumerate(expected):
        for key, nothing in (("token", ""), ("token_id", -1)):
            wanted = [[fill[key] for fill in fills] for fills in answer["fills"]]
            values = found[key][row]
            assert values[: len(wanted)] == wanted
            assert values[len(wanted) :] == [[nothing] * TOP_K] * (len(values) - len(wanted))
        scores = [[fill["score"] for fill in fills] for fills in answer["fills"]]
        np.testing.assert_allclose(found["score"][row][: len(scores)], scores, atol=1e-5)
        assert not np.any(found["score"][row][len(scores) :])


def check_clean(found, expected):
    assert {name: [answer[name] for answer in expected] for name in expected[0]} == found


def expected_clean(model):
    pairs = zip(CORRUPTED, MOST, strict=True)
    return [model.predict(text, max_new_tokens=most)[0] for text, most in pairs]


def test_a_fresh_process_and_the_c_api_give_the_same_answers(models, folders):
    columns = {"text": CORRUPTED, "max_new_tokens": MOST}
    fills = models["masked"].predict(MASKED, top_k=TOP_K, verbose=0)
    clean = expected_clean(models["denoising"])
    assert len({answer["text"] for answer in clean}) > 3
    for answers in (fresh_answers, c_api_answers):
        check_fills(answers(folders["masked"], {"text": MASKED}, signature="fill"), fills)
        check_clean(answers(folders["denoising"], columns, signature="denoise"), clean)


def test_masks_become_sentinels_in_the_graph():
    rows = tf.ragged.constant([[9, 5, 9, 9], [], [9, 6]], dtype=tf.int32)
    found = _with_sentinels(rows, mask_id=9, sentinel_ids=(70, 80))
    assert found.to_list() == [[70, 5, 80, 9], [], [70, 6]]
    assert _with_sentinels(rows, mask_id=9, sentinel_ids=()) is rows


def test_no_texts_and_bytes_that_are_no_text(models, saved):
    for model in saved.values():
        assert {len(values) for values in model.run(text=[]).values()} == {0}
    found = plain(saved["masked"].run(text=[b"a\xff<mask>"]))
    check_fills(found, models["masked"].predict("a\ufffd<mask>", top_k=TOP_K, verbose=0))
    found = plain(saved["denoising"].run(text=[b"a\xff", *CORRUPTED[:2]]))
    texts = ["a\ufffd", *CORRUPTED[:2]]
    check_clean(found, models["denoising"].predict(texts, max_new_tokens=20))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no mask", "A text has no <mask>; write it"),
        ("long " * 20 + "<mask>", "A text has more than 64 tokens"),
        ("<mask> first", "begins with <mask>, but .*masked_next_token.* predicts"),
    ],
)
def test_what_cannot_be_filled_fails_with_the_reason(saved, text, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        saved["masked"].run(text=["a <mask>", text])


def test_what_cannot_be_written_fails_with_the_reason(saved):
    with pytest.raises(tf.errors.InvalidArgumentError, match="max_new_tokens must be"):
        saved["denoising"].run("denoise", text=["a"], max_new_tokens=[0])


def test_settings_of_the_export_are_checked(models, tmp_path):
    with pytest.raises(InputError, match="top_k must be a number from 1 to 256"):
        models["masked"].export(tmp_path / "name", top_k=0)
    with pytest.raises(InputError, match="max_new_tokens must be"):
        models["denoising"].export(tmp_path / "name", max_new_tokens=0)
    with pytest.raises(InputError, match="A Pretraining cannot be exported; these can"):
        Pretraining.from_preset("llama-tiny").export(tmp_path / "name")
    assert not list(tmp_path.iterdir())


def test_tokens_signatures_equal_the_models(models, saved):
    features = {
        "token_ids": np.array([[5, 6, 7], [8, 9, 0]], "int32"),
        "padding_mask": np.array([[1, 1, 1], [1, 1, 0]], "int32"),
    }
    prefix = {"prefix_mask": np.array([[1, 1, 0], [1, 0, 0]], "int32")}
    for name, inputs in (("masked", features), ("denoising", {**features, **prefix})):
        found = saved[name].run("tokens", **inputs)["logits"]
        assert np.abs(found - models[name].predict(inputs, verbose=0)).max() < 1e-4


@pytest.mark.parametrize("name", ["masked", "denoising"])
def test_only_core_and_text_ops_each_weight_once_and_a_true_manifest(models, folders, name):
    model, folder = models[name], folders[name]
    assert ops_beyond_core(folder) <= TEXT_OPS
    assert not {op for op in operations(folder) if "PyFunc" in op}
    in_memory = sum(weight.numpy().nbytes for weight in (w.value for w in model.weights))
    on_disk = sum(path.stat().st_size for path in (folder / "variables").glob("*.data*"))
    assert on_disk < 1.1 * in_memory + 10_000
    manifest = json.loads((folder / "signature.json").read_text(encoding="utf-8"))
    assert manifest["task"] == {"masked": "masked_lm", "denoising": "denoising"}[name]
    assert manifest["cleaning"] == model.cleaning.get_config()["steps"]
    for key, value in LEARNED[name].items():
        assert manifest[key] == value, key
    assert (manifest["mask_id"], manifest["separator_id"]) == (259, 260)
    (asked,) = manifest["example"]["request"]["instances"]
    (answer,) = manifest["example"]["response"]["predictions"]
    if name == "masked":
        expected = model.predict(asked["text"], top_k=TOP_K, verbose=0)
        check_fills({key: [value] for key, value in answer.items()}, expected)
    else:
        assert manifest["defaults"] == {"max_new_tokens": 20}
        assert answer == model.predict(asked["text"], max_new_tokens=20)[0]
