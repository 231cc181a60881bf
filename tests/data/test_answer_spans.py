from itertools import product

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import logsumexp, softmax

from llama_keras.data.answer_spans import _characters, best_answers
from llama_keras.data.context_windows import WindowSettings, make_windows
from llama_keras.text import Tokenizer

SETTINGS = WindowSettings(
    max_sequence_length=18,
    max_question_tokens=4,
    max_answer_tokens=3,
    window_overlap=6,
)
CONTEXTS = ["to be or not to be, that is", "今天 天气", "", "a"]


@pytest.fixture(scope="module")
def windows():
    graph = Tokenizer.from_preset("llama-tiny").graph
    return make_windows(
        tf.constant(["why", "?", "q", "x"]),
        tf.constant(CONTEXTS),
        tokenizer=graph,
        separator_id=2,
        settings=SETTINGS,
    )


def by_hand(logits, windows, number):
    """Odds of all spans of a question, from the definition, window by window."""
    odds = {}
    names = ("pair", "prefix", "first", "own_from", "own_to")
    places = zip(*(np.asarray(getattr(windows, name)) for name in names), strict=True)
    for row, ids, (pair, prefix, first, own_from, own_to) in zip(
        logits, windows.token_ids.to_list(), places, strict=True
    ):
        if pair != number:
            continue
        size = len(ids) - prefix - 1
        scores = {
            (first + i, first + j): row[prefix + i, 0] + row[prefix + j, 1]
            for i, j in product(range(size), range(size))
            if i <= j < i + SETTINGS.max_answer_tokens
        }
        own = {span: s for span, s in scores.items() if own_from <= span[0] < own_to}
        null = row[len(ids) - 1].sum()
        against = logsumexp([null, *(s for span, s in scores.items() if span not in own)])
        assert not odds.keys() & own.keys()
        odds |= {span: s - against for span, s in own.items()}
    return odds


@pytest.mark.parametrize("null_answers", [False, True])
def test_probabilities_over_all_windows_by_hand(windows, null_answers):
    rows = int(windows.pair.shape[0])
    logits = np.random.default_rng(0).normal(0, 2, (rows, 18, 2)).astype("float32")
    found = best_answers(
        logits,
        CONTEXTS,
        windows=windows,
        settings=SETTINGS,
        count=400,
        null_answers=null_answers,
    )
    assert rows > len(CONTEXTS)
    for number, context in enumerate(CONTEXTS):
        odds = by_hand(logits.astype("float64"), windows, number)
        expected = softmax([*odds.values(), 0.0 if null_answers else -1e9])[:-1]
        scores = found.score[number].numpy()
        assert np.allclose(np.sort(expected)[::-1], scores[: len(odds)], atol=1e-5)
        assert (scores[len(odds) :] == 0).all()
        assert found.null_score[number].numpy() == pytest.approx(
            1 / (1 + sum(map(np.exp, odds.values()))), abs=1e-5
        )
        for text, start, end in zip(
            *(part[number].numpy().tolist() for part in (found.text, found.start, found.end)),
            strict=True,
        ):
            assert text.decode() == (context[start:end] if start >= 0 else "")
            assert text.decode() == text.decode().strip()
        if odds:
            (first, last) = max(odds, key=lambda span: odds[span])
            starts, ends = (part[number].numpy() for part in (windows.starts, windows.ends))
            best = context.encode()[starts[first] : ends[last]].decode("utf-8", "ignore")
            assert best.strip() in bytes(found.text[number, 0].numpy()).decode()


def test_one_question_is_answered_alone_as_in_company(windows):
    logits = np.zeros((int(windows.pair.shape[0]), 18, 2), "float32")
    found = best_answers(
        logits, CONTEXTS, windows=windows, settings=SETTINGS, count=1, null_answers=False
    )
    assert found.start[2].numpy() == [-1] and found.score[2].numpy() == [0.0]
    assert found.null_score[2].numpy() == 1.0
    assert np.isfinite(found.score.numpy()).all()
    assert found.text[3].numpy() == [b"a"] and found.score[3].numpy() == pytest.approx([1.0])


def test_characters_are_those_that_python_counts():
    texts = ["\ufeffnaïve e\u0301 🙂", "", "a\x00b \u2003 c", "\ufffe今天 \U000e0001", "🙂"] * 2
    windows = make_windows(
        tf.constant(["?"] * len(texts)),
        tf.constant(texts),
        tokenizer=Tokenizer.from_preset("llama-tiny").graph,
        separator_id=2,
        settings=SETTINGS,
    )
    columns = max(windows.starts.row_lengths().numpy())
    first = tf.range(columns)[tf.newaxis] + tf.zeros([len(texts), 1], tf.int64)
    found = _characters(tf.constant(texts), windows, first, first + 2)
    for number, text in enumerate(texts):
        # A token may be one byte of a character: each byte's character, by number.
        owner = [place for place, letter in enumerate(text) for _ in letter.encode()]
        bytes_ = zip(
            *(part[number].numpy() for part in (windows.starts, windows.ends)), strict=True
        )
        for column, (byte, _) in enumerate(bytes_):
            past = windows.ends[number].numpy()[column:][:3][-1]
            raw = text[owner[byte] : owner[past - 1] + 1]
            string, start, end = (part.numpy()[number, column] for part in found)
            assert string.decode() == text[start:end] == raw.strip()
