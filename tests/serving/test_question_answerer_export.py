import json

import numpy as np
import pytest
import tensorflow as tf

from llama_keras.serving import SavedModel, serve_in_background
from llama_keras.tasks import QuestionAnswerer
from tests.serving.fresh_process import (
    TEXT_OPS,
    c_api_answers,
    fresh_answers,
    operations,
    ops_beyond_core,
)

QUESTIONS = ["who?", "今天天气怎么样，谁知道？", "", "what", "who?", "far"]
CONTEXTS = [
    "She grew up near Lima.",
    "今天天气很好，我们去北京看长城。" * 30,
    "null \x00 byte",
    "",
    " \u200f naïve\u3000🙂 שלום",
    "word " * 500,
]
COLUMNS = {"question": QUESTIONS, "context": CONTEXTS}


@pytest.fixture(scope="module", params=[False, True], ids=["answers", "null_answers"])
def exported(request, tmp_path_factory):
    tf.keras.utils.set_random_seed(1)
    model = QuestionAnswerer.from_preset(
        "llama-tiny",
        max_sequence_length=64,
        max_question_tokens=12,
        max_answer_tokens=10,
        window_overlap=24,
        null_answers=request.param,
    )
    # Some answers are null, some are not.
    scores = [row["null_score"] for row in model.predict((QUESTIONS, CONTEXTS), verbose=0)]
    model.null_threshold = float(np.median(scores))
    folder = model.export(tmp_path_factory.mktemp("saved") / "answers")
    return model, folder, model.predict((QUESTIONS, CONTEXTS), verbose=0)


def check(found, expected):
    assert found["answer"] == [row["text"] for row in expected]
    for name in ("start", "end"):
        assert found[name] == [row[name] for row in expected]
    for name in ("score", "null_score"):
        assert np.abs(np.array(found[name]) - [row[name] for row in expected]).max() < 1e-5


def test_a_fresh_process_without_our_code_gives_the_same_answers(exported):
    model, folder, expected = exported
    check(fresh_answers(folder, COLUMNS), expected)
    nulls = [not row["text"] for row in expected]
    assert sum(nulls) == (3 if model.null_answers else 1)


def test_the_c_api_gives_the_same_answers_as_tf_serving_would(exported):
    _, folder, expected = exported
    check(c_api_answers(folder, COLUMNS), expected)


def test_a_server_takes_columns_and_rows(exported):
    import httpx

    _, folder, expected = exported
    with serve_in_background(folder.parent) as url:
        columns = httpx.post(f"{url}:predict", json={"inputs": COLUMNS}, timeout=60).json()
        rows = [{"question": q, "context": c} for q, c in zip(QUESTIONS, CONTEXTS, strict=True)]
        answers = httpx.post(f"{url}:predict", json={"instances": rows}, timeout=60).json()
    check(columns["outputs"], expected)
    assert [row["answer"] for row in answers["predictions"]] == [row["text"] for row in expected]


def test_bytes_that_are_no_text_no_rows_and_a_book(exported):
    model, folder, _ = exported
    saved = SavedModel(folder)
    broken = saved.run(question=[b"\xff"], context=[b"a\xff \xe4\xbb"])
    (expected,) = model.predict((["\ufffd"], ["a\ufffd \ufffd"]), verbose=0)
    check(
        {
            k: [x.decode() if isinstance(x, bytes) else x for x in v.tolist()]
            for k, v in broken.items()
        },
        [expected],
    )
    assert {k: v.shape for k, v in saved.run(question=[], context=[]).items()} == {
        name: (0,) for name in ("answer", "start", "end", "score", "null_score")
    }
    book = "The quick brown fox. " * 1000
    (expected,) = model.predict((["who?"], [book]), verbose=0)
    found = saved.run(question=["who?"], context=[book])
    assert found["null_score"][0] == pytest.approx(expected["null_score"], abs=1e-5)


def test_only_core_and_text_ops_each_weight_once_and_a_true_example(exported):
    model, folder, _ = exported
    assert ops_beyond_core(folder) <= TEXT_OPS
    assert not {op for op in operations(folder) if "PyFunc" in op}
    in_memory = sum(weight.numpy().nbytes for weight in (w.value for w in model.weights))
    on_disk = sum(path.stat().st_size for path in (folder / "variables").glob("*.data*"))
    assert on_disk < 1.1 * in_memory + 10_000
    manifest = json.loads((folder / "signature.json").read_text(encoding="utf-8"))
    assert manifest["task"] == "question_answering"
    assert manifest["signatures"]["serving_default"]["inputs"].keys() == COLUMNS.keys()
    (asked,) = manifest["example"]["request"]["instances"]
    (answer,) = manifest["example"]["response"]["predictions"]
    (expected,) = model.predict([asked], verbose=0)
    assert answer["answer"] == expected["text"] and answer["start"] == expected["start"]


def test_tokens_signature_equals_the_model(exported):
    model, folder, _ = exported
    features = {
        "token_ids": np.array([[5, 2, 7, 8, 2], [2, 9, 2, 0, 0]], "int32"),
        "padding_mask": np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], "int32"),
    }
    found = SavedModel(folder).run("tokens", **features)["logits"]
    assert np.abs(found - model.predict(features, verbose=0)).max() < 1e-5
