import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_keras.tasks.answer_labels import LabelCounts, TokenSpan, locate, row_labels, token_span
from llama_keras.tasks.question_data import Answer
from llama_keras.text import Tokenizer


@pytest.fixture(scope="module")
def offsets_of():
    tokenizer = Tokenizer.from_preset("llama-tiny")

    def give(text):
        return np.array(tokenizer.encode(text, offsets=True).offsets, int).reshape(-1, 2)

    return give


def found(*arguments) -> TokenSpan:
    span = token_span(*arguments)
    assert span is not None
    return span


@pytest.mark.parametrize(
    ("text", "at", "place"),
    [
        ("ab", 3, 3),
        ("ab", 2, 3),
        ("ab", -1, 0),
        ("ab", 7, 6),
        ("ab", 99, 6),
        ("ac", 0, None),
        (" ", 2, None),
        ("", 0, None),
    ],
)
def test_answers_are_sought_near_their_offset(text, at, place):
    assert locate(Answer(text, at), "ab ab ab") == place


def test_first_answer_at_its_offset_is_learnt(offsets_of):
    context = "red, blue"
    answers = [Answer("green", 0), Answer("blue", 0), Answer("red", 0)]
    span = found(answers, context, offsets_of(context))
    assert (span.first, span.last, span.is_moved, span.is_exact) == (0, 2, False, True)
    moved = found(answers[:2], context, offsets_of(context))
    assert (moved.first, moved.last, moved.is_moved) == (5, 8, True)
    assert token_span(answers[:1], context, offsets_of(context)) is None


def test_answers_inside_a_token_are_told_apart():
    offsets = np.array([[0, 4], [4, 9], [9, 10]])  # "in", " 1987", "."
    span = found([Answer("987", 6)], "year 1987.", offsets)
    assert (span.first, span.last, span.is_exact) == (1, 1, False)
    whole = found([Answer("1987", 5)], "year 1987.", offsets)
    assert (whole.first, whole.last, whole.is_exact) == (1, 1, True)


@given(st.text(max_size=30), st.data())
def test_tokens_of_a_span_spell_it(offsets_of, text, data):
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    offsets = offsets_of(text)
    answers = [Answer(text[start:end], start)]
    if not text[start:end].strip():
        assert token_span(answers, text, offsets) is None
        return
    span = found(answers, text, offsets)
    # Bytes are its tokens, so every character is a run of whole tokens.
    assert span.is_exact and not span.is_moved
    assert text[offsets[span.first, 0] : offsets[span.last, 1]] == text[start:end].strip()


def test_windows_without_the_whole_answer_point_at_their_end():
    arguments = {
        "prefix": np.array([3, 3, 3]),
        "first": np.array([0, 4, 8]),
        "lengths": np.array([10, 10, 7]),  # windows of 6, 6 and 3 tokens
    }
    span = TokenSpan(5, 6, is_moved=False, is_exact=True)
    assert row_labels(span, **arguments).tolist() == [[9, 9], [4, 5], [6, 6]]
    assert row_labels(None, **arguments).tolist() == [[9, 9], [9, 9], [6, 6]]


def test_counts_are_told(caplog):
    counts = LabelCounts(3)
    counts.add(None, is_labelled=False)
    counts.add(TokenSpan(0, 5, is_moved=True, is_exact=False), is_labelled=True)
    counts.add(TokenSpan(0, 1, is_moved=False, is_exact=True), is_labelled=True)
    counts.add(TokenSpan(0, 99, is_moved=False, is_exact=True), is_labelled=False)
    with caplog.at_level(logging.WARNING, logger="llama_keras"):
        counts.tell()
    told = "\n".join(caplog.messages)
    for part in (
        "1 of 4 answers were not at",
        "1 of 4 answers do not begin",
        "2 of 4 answers have more than",
        "1 of 4 questions are left out: no answer",
        "1 of 4 questions are left out: their answer is longer",
    ):
        assert part in told
