import json

import numpy as np
import pytest
import tensorflow as tf

from llama_keras.serving import SavedModel, serve_in_background
from llama_keras.tasks import TextClassifier
from tests.serving.fresh_process import (
    TEXT_OPS,
    c_api_answers,
    fresh_answers,
    operations,
    ops_beyond_core,
)

TEXTS = ["Is it good?", "", "今天天气 🙂 naïve", "null \x00 byte", "long " * 60, "who?"]
SECONDS = ["It is.", "", "很好", "", "long " * 60, "someone " * 60]
COLUMNS = {"text": TEXTS, "text_pair": SECONDS}
FORMS = {
    "pairs": {"pairs": True},
    "sets": {"multi_label": True, "threshold": 0.47},
    "sets of pairs": {"pairs": True, "multi_label": True, "cleaning": ["lower"]},
}


@pytest.fixture(scope="module", params=FORMS)
def exported(request, tmp_path_factory):
    tf.keras.utils.set_random_seed(2)
    model = TextClassifier.from_preset(
        "llama-tiny",
        labels=["film", "music", "sport"],
        max_sequence_length=64,
        **FORMS[request.param],
    )
    folder = model.export(tmp_path_factory.mktemp("saved") / "name")
    columns = COLUMNS if model.pairs else {"text": TEXTS}
    x = list(zip(TEXTS, SECONDS, strict=True)) if model.pairs else TEXTS
    return model, folder, columns, model.predict(x, verbose=0)


def check(model, found, expected):
    scores = [list(row["scores"].values()) for row in expected]
    assert np.abs(np.array(found["scores"]) - scores).max() < 1e-5
    if model.multi_label:
        assert found.keys() == {"scores", "chosen"}
        names = [[n for n, c in zip(model.labels, r, strict=True) if c] for r in found["chosen"]]
        assert names == [row["labels"] for row in expected]
    else:
        assert found["label"] == [row["label"] for row in expected]
        assert np.abs(np.array(found["score"]) - np.max(scores, axis=1)).max() < 1e-5


def test_a_fresh_process_without_our_code_gives_the_same_answers(exported):
    model, folder, columns, expected = exported
    check(model, fresh_answers(folder, columns), expected)


def test_the_c_api_gives_the_same_answers_as_tf_serving_would(exported):
    model, folder, columns, expected = exported
    check(model, c_api_answers(folder, columns), expected)


def test_a_server_takes_rows(exported):
    import httpx

    model, folder, columns, expected = exported
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    with serve_in_background(folder.parent) as url:
        found = httpx.post(f"{url}:predict", json={"instances": rows}, timeout=60).json()
    answers = found["predictions"]
    check(model, {name: [row[name] for row in answers] for name in answers[0]}, expected)


def test_manifest_ops_and_a_true_example(exported):
    model, folder, columns, _ = exported
    manifest = json.loads((folder / "signature.json").read_text(encoding="utf-8"))
    assert manifest["signatures"]["serving_default"]["inputs"].keys() == columns.keys()
    assert manifest.get("threshold") == (model.threshold if model.multi_label else None)
    (asked,) = manifest["example"]["request"]["instances"]
    (answer,) = manifest["example"]["response"]["predictions"]
    x = [(asked["text"], asked["text_pair"])] if model.pairs else [asked["text"]]
    check(model, {k: [v] for k, v in answer.items()}, model.predict(x, verbose=0))
    assert ops_beyond_core(folder) <= TEXT_OPS
    assert not {op for op in operations(folder) if "PyFunc" in op}


def test_no_rows_and_bytes_that_are_no_text(exported):
    model, folder, columns, _ = exported
    saved = SavedModel(folder)
    none = saved.run(**{name: [] for name in columns})
    assert none["scores"].shape == (0, 3)
    found = saved.run(**{name: [b"a\xff"] for name in columns})
    x = [("a\ufffd", "a\ufffd")] if model.pairs else ["a\ufffd"]
    check(
        model,
        {k: v.tolist() for k, v in found.items() if k != "label"}
        | ({} if model.multi_label else {"label": [found["label"][0].decode()]}),
        model.predict(x, verbose=0),
    )
