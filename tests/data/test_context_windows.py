import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_keras.data.context_windows import WindowSettings, make_windows
from llama_keras.errors import InputError
from llama_keras.text import Tokenizer
from llama_keras.text.cleaning import Cleaning

SETTINGS = WindowSettings(
    max_sequence_length=20,
    max_question_tokens=6,
    max_answer_tokens=3,
    window_overlap=6,
)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_preset("llama-tiny")


def windows_of(tokenizer, questions, contexts, **changes):
    return make_windows(
        tf.constant(questions, tf.string),
        tf.constant(contexts, tf.string),
        tokenizer=tokenizer.graph,
        separator_id=2,
        settings=SETTINGS,
        **changes,
    )


def plain(windows):
    names = ("pair", "prefix", "first", "own_from", "own_to")
    rows = zip(*(np.asarray(getattr(windows, name)).tolist() for name in names), strict=True)
    return list(zip(windows.token_ids.to_list(), rows, strict=True))


TEXTS = st.lists(
    st.tuples(st.text(max_size=12), st.text(max_size=60) | st.text("ab今 🙂", max_size=200)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(TEXTS)
def test_windows_cover_every_token_once_and_every_answer_whole(tokenizer, texts):
    questions, contexts = (list(part) for part in zip(*texts, strict=True))
    windows = windows_of(tokenizer, questions, contexts)
    rows = plain(windows)
    for number, (question, context) in enumerate(texts):
        asked = tokenizer.encode(question, add_eos=False)[: SETTINGS.max_question_tokens]
        ids = tokenizer.encode(context, add_bos=False, add_eos=False)
        mine = [(row, place) for row, place in rows if place[0] == number]
        owned, seen = [], set()
        for row, (_, prefix, first, own_from, own_to) in mine:
            assert len(row) <= SETTINGS.max_sequence_length
            assert row[:prefix] == [*asked, 2]
            assert row[-1] == 2
            window = row[prefix:-1]
            assert window == ids[first : first + len(window)]
            owned += range(own_from, own_to)
            # All answers whose first token is the row's own lie in the row.
            ends = min(own_to - 1 + SETTINGS.max_answer_tokens, len(ids))
            assert own_from == own_to or (first <= own_from and ends <= first + len(window))
            seen |= set(range(first, first + len(window)))
        assert owned == list(range(len(ids)))
        assert seen == set(range(len(ids)))
    assert np.asarray(windows.is_cut).tolist() == [
        len(tokenizer.encode(question)) > SETTINGS.max_question_tokens for question in questions
    ]


def test_offsets_are_those_of_the_tokenizer_and_contexts_are_read_once(tokenizer):
    windows = windows_of(tokenizer, ["a", "b", "c"], ["née", b"x\xff", "née"])
    assert windows.starts.to_list() == [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]]
    assert windows.contexts.numpy().tolist() == ["née".encode(), "x\ufffd".encode(), "née".encode()]


def test_no_pairs_make_no_rows(tokenizer):
    assert plain(windows_of(tokenizer, [], [])) == []


def test_cleaning_comes_before_the_tokenizer(tokenizer):
    cleaned = windows_of(tokenizer, ["WHO"], ["ANNA"], cleaning=Cleaning(["lower"]))
    assert plain(cleaned) == plain(windows_of(tokenizer, ["who"], ["anna"]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_answer_tokens": 4}, "at least twice max_answer_tokens=4"),
        ({"max_answer_tokens": 0}, "must be at least 1"),
        ({"max_sequence_length": 14}, "need at least 15"),
    ],
)
def test_settings_that_do_not_fit(changes, message):
    from dataclasses import replace

    with pytest.raises(InputError, match=message):
        replace(SETTINGS, **changes)
