import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_keras.text import Tokenizer
from llama_keras.text.characters import (
    BLANK,
    LETTER,
    MARK,
    SINGLE,
    character_class,
    character_ranges,
    needs_no_spaces,
)
from llama_keras.text.offsets import clean_text
from llama_keras.text.units import find_units
from tests.text.sentence_piece_models import KINDS, spec_of, train

TEXTS = {
    "EU rejects German call.": ["EU", "rejects", "German", "call", "."],
    "  U.S.  in\t2019\u3000ok\n": ["U", ".", "S", ".", "in", "2019", "ok"],
    "今天天气很好,iPhone4在纽约": [*"今天天气很好,", "iPhone4", *"在纽约"],
    "naïve e\u0301a": ["naïve", "e\u0301a"],
    "b\u200bc \u200b x": ["b\u200bc", "\u200b", "x"],
    "🙂👩\u200d👧 x": ["🙂", "👩\u200d", "👧", "x"],
    "\u202eשלום עולם": ["\u202e", "שלום", "עולם"],
    "ありがとう テスト": [*"ありがとう", *"テスト"],
    "": [],
    " \n ": [],
    "null \x00 byte": ["null", "byte"],
}


def units_of(tokenizer, texts):
    tensor = tf.constant([clean_text(text) for text in texts])
    tokens = tokenizer.graph.tokenize_with_offsets(tensor, add_bos=False, add_eos=False)
    found = [x.numpy() for x in find_units(tensor, tokens)]
    rows = []
    for index in range(len(texts)):
        part = slice(*found[0][index : index + 2])
        rows.append([x[part].tolist() for x in found[1:]])
    return rows, tokens.ids.to_list()


def test_byte_tokens_are_joined_to_words_and_characters(tiny):
    # llama-tiny spells nearly everything byte by byte.
    rows, _ = units_of(tiny, list(TEXTS))
    for (text, expected), (starts, ends, *_) in zip(TEXTS.items(), rows, strict=True):
        assert [text[a:b] for a, b in zip(starts, ends, strict=True)] == expected


def test_tokens_that_span_two_words_join_them(smollm2_tokenizer):
    text = "don't stop..."
    (row,), _ = units_of(smollm2_tokenizer, [text])
    found = [text[a:b] for a, b in zip(row[0], row[1], strict=True)]
    # "'t" and "..." are one token each.
    assert found == ["don", "'t", "stop", "..."]


strings = st.text(
    st.one_of(
        st.sampled_from("ab1 .,'今天ไทย\u0301\u200b\n🙂é"), st.characters(exclude_categories=["Cs"])
    ),
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(strings, min_size=1, max_size=4), kind=st.sampled_from(["tiny", "smollm2"]))
def test_units_hold_whole_tokens_and_all_ink(tiny, smollm2_tokenizer, texts, kind):
    tokenizer = {"tiny": tiny, "smollm2": smollm2_tokenizer}[kind]
    rows, _ = units_of(tokenizer, texts)
    alone = [units_of(tokenizer, [text])[0][0] for text in texts]
    assert rows == alone  # neighbours in a batch change nothing
    for text, row in zip(texts, rows, strict=True):
        starts, ends, first, last = (np.array(x, int) for x in row)
        assert (starts < ends).all() and (ends[:-1] <= starts[1:]).all()
        assert (first <= last).all() and (last[:-1] < first[1:]).all()
        covered = np.zeros(len(text), bool)
        for a, b in zip(starts, ends, strict=True):
            covered[a:b] = True
            assert BLANK not in (character_class(text[a]), character_class(text[b - 1]))
        ink = np.array([character_class(c) != BLANK for c in text], bool)
        missing = ink & ~covered
        # Only characters that the vocabulary drops may be in no unit.
        if kind == "smollm2":
            assert all(not tokenizer.encode(text[i]) for i in np.flatnonzero(missing))
        encoding = tokenizer.encode(text, offsets=True, add_bos=False, add_eos=False)
        for token in range(len(encoding.ids)):
            a, b = encoding.offsets[token]
            inside = np.flatnonzero(ink[a:b]) + a
            owners = {int(np.searchsorted(ends, i, side="right")) for i in inside}
            assert len(owners) <= 1


def test_sentence_piece_bytes_of_no_width_are_in_no_unit(repository):
    tokenizer = Tokenizer(spec_of(train(repository, **KINDS["llama"])))
    text = "hello 龘 x"
    (row,), _ = units_of(tokenizer, [text])
    assert [text[a:b] for a, b in zip(row[0], row[1], strict=True)] == ["hello", "龘", "x"]


def test_ranges_are_the_classes_of_all_characters():
    starts, classes = character_ranges()
    codes = np.r_[0:0x3100, 0xF900:0x10000, 0x1F000:0x20010, 0xE0000:0xE0200]
    found = classes[np.searchsorted(starts, codes, side="right") - 1]
    assert found.tolist() == [character_class(chr(code)) for code in codes]
    assert len(starts) < 4000


@pytest.mark.parametrize(
    ("characters", "expected"),
    [(" \n\u3000\u00a0\x00", BLANK), ("aZé9٣ш한", LETTER), ("\u0301\u200b\u200f\ufeff", MARK),
     (".,'#。🙂今ぁアไ", SINGLE)],
)  # fmt: skip
def test_classes(characters, expected):
    assert {character_class(c) for c in characters} == {expected}


def test_scripts_without_spaces():
    assert all(map(needs_no_spaces, "今ぁアไ々"))
    assert not any(map(needs_no_spaces, "a1한ш. "))
