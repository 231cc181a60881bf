"""Exports read texts of a million characters as `predict` does, and a server says what is too much.

Models are tiny, with random weights such that they find much.
"""

from types import SimpleNamespace

import httpx
import keras
import numpy as np
import pytest

from llama_keras.serving import SavedModel, serve_in_background
from llama_keras.tasks import QuestionAnswerer, TokenClassifier
from tests.long_texts import MILLION, TINY, book
from tests.marks import slow

SIZES = [30_000, *slow(MILLION)]
SHORT = ["Ada in Rome"] * 40


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    keras.utils.set_random_seed(0)
    model = TokenClassifier.from_preset("llama-tiny", labels=["LOC"], backbone_arguments=TINY)
    generator = np.random.default_rng(0)
    model.head.set_weights([generator.normal(size=w.shape) for w in model.head.get_weights()])
    return exported(model, tmp_path_factory)


@pytest.fixture(scope="module")
def answerer(tmp_path_factory):
    keras.utils.set_random_seed(0)
    model = QuestionAnswerer.from_preset("llama-tiny", backbone_arguments=TINY)
    return exported(model, tmp_path_factory)


def exported(model, tmp_path_factory):
    folder = model.export(tmp_path_factory.mktemp("saved") / "model")
    return SimpleNamespace(model=model, folder=folder, loaded=SavedModel(folder))


@pytest.mark.parametrize("size", SIZES)
def test_entities_of_a_long_text_among_short_ones(tagger, size):
    texts = [*SHORT, book(size), *SHORT]
    expected = tagger.model.predict(texts, verbose=0)
    found = tagger.loaded.run(text=texts)
    assert found["count"].tolist() == [len(row) for row in expected]
    assert found["count"].max() > size // 1000
    for row, entities in enumerate(expected):
        count = len(entities)
        names = {"entity": "text", "label": "label", "start": "start", "end": "end"}
        for name, key in names.items():
            values = found[name][row, :count].tolist()
            values = [v.decode() if isinstance(v, bytes) else v for v in values]
            assert values == [one[key] for one in entities]
        scores = [one["score"] for one in entities]
        np.testing.assert_allclose(found["score"][row, :count], scores, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_answers_in_a_long_text_among_short_ones(answerer, size):
    contexts = [*SHORT, book(size), *SHORT]
    questions = ["who?"] * len(contexts)
    expected = answerer.model.predict((questions, contexts), verbose=0)
    check(answerer.loaded.run(question=questions, context=contexts), expected)


def check(found, expected):
    answers = [x.decode() if isinstance(x, bytes) else x for x in found["answer"]]
    assert answers == [row["text"] for row in expected]
    assert list(found["start"]) == [row["start"] for row in expected]
    for name in ("score", "null_score"):
        np.testing.assert_allclose(found[name], [row[name] for row in expected], atol=1e-5)


@pytest.mark.parametrize("kind", ["tagger", "answerer"])
def test_a_server_answers_long_texts_up_to_its_limit(kind, request):
    one = request.getfixturevalue(kind)
    text, too_long = book(20_000), "x" * (32 * 2**20)

    def inputs(text):
        return {"text": [text]} if kind == "tagger" else {"question": ["who?"], "context": [text]}

    with serve_in_background(one.folder.parent) as url, httpx.Client(timeout=60) as http:
        refused = http.post(f"{url}:predict", json={"inputs": inputs(too_long)})
        answer = http.post(f"{url}:predict", json={"inputs": inputs(text)}).json()["outputs"]
    assert refused.status_code == 413 and str(32 * 2**20) in refused.json()["error"]
    if kind == "tagger":
        (expected,) = one.model.predict([text], verbose=0)
        assert answer["entity"] == [[entity["text"] for entity in expected]]
        assert answer["start"] == [[entity["start"] for entity in expected]]
    else:
        check(answer, one.model.predict((["who?"], [text]), verbose=0))
