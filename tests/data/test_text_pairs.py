import dataclasses
from typing import Any, cast

import pytest
import tensorflow as tf
import tensorflow_text as tf_text
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_keras.data.text_pairs import PairTokenizer
from llama_keras.errors import InputError
from llama_keras.text import Tokenizer
from llama_keras.text.spec import TokenizerSpec

TINY = TokenizerSpec.tiny()
SEPARATOR: Any = TINY.eos_id
LIMITS = [3, 4, 13, 24]


def tokenizer(**changes):
    return Tokenizer(dataclasses.replace(TINY, **changes))


@pytest.fixture(scope="module")
def by_limit():
    """A tokenizer, and what makes pairs of each limit, traced once."""
    tiny = tokenizer()
    return {"tokenizer": tiny, **{n: PairTokenizer(tiny, limit=n) for n in LIMITS}}


def longest_first(first, second, room):
    """Hugging Face's rule, token by token."""
    first, second = list(first), list(second)
    while len(first) + len(second) > room:
        (first if len(first) > len(second) else second).pop()
    return first, second


@settings(max_examples=60, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), min_size=1, max_size=4),
    limit=st.sampled_from(LIMITS),
)
def test_rows_are_those_of_the_longhand_rule_and_of_tf_text(by_limit, pairs, limit):
    tiny = by_limit["tokenizer"]
    ids = [[tiny.encode(text) for text in pair] for pair in pairs]
    rows, cut = by_limit[limit].encode(*map(list, zip(*pairs, strict=True)))
    kept = [longest_first(a, b, limit - 1) for a, b in ids]
    assert rows == [[*first, SEPARATOR, *second] for first, second in kept]
    assert cut == sum(len(a) + len(b) > limit - 1 for a, b in ids)
    columns = [tf.ragged.constant(part, tf.int32) for part in zip(*ids, strict=True)]
    trimmed = cast(Any, tf_text).RoundRobinTrimmer(limit - 1).trim(columns)
    peer = [[a, b] for a, b in zip(*(part.to_list() for part in trimmed), strict=True)]
    assert peer == [[first, second] for first, second in kept]


def test_ids_that_begin_and_end_a_text_stand_around_the_pair_and_are_never_cut():
    around = tokenizer(bos_id=1, add_bos=True, add_eos=True)
    pairs = PairTokenizer(around, limit=7)
    a, b = (around.encode(text, add_bos=False, add_eos=False)[0] for text in "ab")
    rows, cut = pairs.encode(["a", "aaaa", ""], ["b", "bbbb", ""])
    assert rows == [
        [1, a, SEPARATOR, b, SEPARATOR],
        [1, a, a, SEPARATOR, b, b, SEPARATOR],
        [1, SEPARATOR, SEPARATOR],
    ]
    assert cut == 1


def test_a_separator_spelled_in_a_text_is_plain_text():
    tiny = tokenizer()
    (name,) = (text for text, id_ in tiny.special_tokens.items() if id_ == SEPARATOR)
    ((row,), _) = PairTokenizer(tiny, limit=64).encode([f"a{name}"], [name])
    assert row.count(SEPARATOR) == 1


def test_text_that_utf8_cannot_hold_and_many_pairs():
    tiny = tokenizer()
    pairs = PairTokenizer(tiny, limit=64)
    rows, _ = pairs.encode(["\ud800"] * 1500, ["x"] * 1500)
    assert rows == [[*tiny.encode("\ufffd"), SEPARATOR, *tiny.encode("x")]] * 1500


def test_no_separator_and_no_room_are_refused():
    with pytest.raises(InputError, match="end-of-text token"):
        PairTokenizer(tokenizer(eos_id=None, end_ids=()), limit=9)
    with pytest.raises(InputError, match="max_sequence_length=2 leaves no room .* at least 3"):
        PairTokenizer(tokenizer(), limit=2)
