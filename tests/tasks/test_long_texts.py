"""Texts of a million characters: cut and counted, or read to their end, in time."""

import logging
import time

import keras
import numpy as np
import pytest

from llama_keras.tasks import Embedder, QuestionAnswerer, TextClassifier, TokenClassifier
from llama_keras.text import Tokenizer
from tests.long_texts import MILLION, TINY, book
from tests.marks import slow

UGLY = {
    "words": book(MILLION),
    "one word": "a" * MILLION,
    "one blank": " " * MILLION,
    "lines": "\n" * MILLION,
    "Chinese": "今天天气" * (MILLION // 4),
    "marks": "<|" * (MILLION // 2),
    "emoji": "🙂" * MILLION,
}


@pytest.mark.parametrize("kind", UGLY)
def test_a_tokenizer_takes_a_million_characters(kind):
    tokenizer, text = Tokenizer.from_preset("llama-tiny"), UGLY[kind]
    tokenizer.encode("once", offsets=True)
    start = time.monotonic()
    found = tokenizer.encode(text, offsets=True)
    # A quadratic search takes minutes to hours.
    assert time.monotonic() - start < 30
    assert found.offsets[-1][1] == len(text)
    assert tokenizer.decode(found.ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("task", [TextClassifier, Embedder])
def test_what_reads_the_beginning_alone_cuts_and_counts(task, caplog):
    labels = {"labels": ["a", "b"]} if task is TextClassifier else {}
    model = task.from_preset("llama-tiny", max_sequence_length=64, **labels)
    long = book(MILLION)
    with caplog.at_level(logging.WARNING, logger="llama_keras"):
        found = model.predict([long, "short", long[:1000]], verbose=0)
    assert "2 of 3 texts were cut to 64 tokens" in caplog.text
    values = [list(row["scores"].values()) if labels else row for row in found]
    np.testing.assert_allclose(values[0], values[2], atol=1e-5)
    assert np.abs(np.subtract(values[0], values[1])).max() > 1e-4


@pytest.mark.parametrize("size", [30_000, *slow(MILLION)])
def test_entities_are_found_to_the_end_of_a_text(size):
    keras.utils.set_random_seed(0)
    model = TokenClassifier.from_preset("llama-tiny", labels=["LOC"], backbone_arguments=TINY)
    generator = np.random.default_rng(0)
    model.head.set_weights([generator.normal(size=w.shape) for w in model.head.get_weights()])
    text = book(size)
    (found,) = model.predict([text], verbose=0)
    assert all(text[one["start"] : one["end"]] == one["text"] for one in found)
    starts = [one["start"] for one in found]
    assert starts == sorted(starts) and starts[0] < 1000 and starts[-1] > size - 1000
    # What a window's middle says does not depend on what is far away.
    (again,) = model.predict([text[: size // 2]], verbose=0)
    near = size // 2 - 2000
    assert [one for one in found if one["end"] < near] == [
        {**one, "score": pytest.approx(one["score"], abs=1e-4)}
        for one in again
        if one["end"] < near
    ]


@pytest.mark.parametrize("size", [30_000, *slow(MILLION)])
def test_answers_are_looked_for_to_the_end_of_a_text(size):
    keras.utils.set_random_seed(0)
    model = QuestionAnswerer.from_preset("llama-tiny", backbone_arguments=TINY)
    text = book(size)
    answer, same, _ = model.predict((["who?"] * 3, [text, text, "short"]), verbose=0, n_best=20)
    assert answer["text"] and len(answer["n_best"]) > 1
    assert all(text[one["start"] : one["end"]] == one["text"] for one in answer["n_best"])
    assert same["start"] == answer["start"]
    # The second half has windows that count, too.
    half = model.predict((["who?"], [text[: size // 2]]), verbose=0)[0]
    assert half["null_score"] > answer["null_score"]
