import pytest
import tensorflow as tf

from llama_keras.errors import InputError
from llama_keras.tasks.entity_data import (
    SpanReport,
    as_texts_and_spans,
    is_raw_entities,
    join_words,
    trimmed,
    unit_tags,
)
from llama_keras.tasks.tagging import Span

WORDS = [["Ann", "Lee", "in", "Rome"], [], ["今", "天", "在", "北", "京"]]
TAGS = [["B-PER", "I-PER", "O", "B-LOC"], [], ["O", "O", "O", "B-LOC", "I-LOC"]]
TEXTS = ["Ann Lee in Rome", "", "今天在北京"]
SPANS = [[Span(0, 7, "PER"), Span(11, 15, "LOC")], [], [Span(3, 5, "LOC")]]


@pytest.mark.parametrize(
    ("words", "separator", "text"),
    [
        (["a", "b"], None, "a b"),
        (["今", "天"], None, "今天"),
        (["iPhone", "4", "在", "北", "京"], None, "iPhone4在北京"),
        (["the", "word", "今天", "means", "today"], None, "the word 今天 means today"),
        (["a", "b"], "", "ab"),
        (["今", "天"], " ", "今 天"),
        ([], None, ""),
    ],
)
def test_words_are_joined_by_the_script_or_as_told(words, separator, text):
    found, places = join_words(words, separator=separator)
    assert found == text
    assert [found[a:b] for a, b in places] == words


def test_words_with_tags():
    assert as_texts_and_spans(WORDS, TAGS) == (TEXTS, SPANS)
    assert as_texts_and_spans(WORDS, None) == (TEXTS, None)
    iobes = [["B-PER", "E-PER", "O", "S-LOC"], [], ["O", "O", "O", "B-LOC", "E-LOC"]]
    assert as_texts_and_spans(WORDS, iobes) == (TEXTS, SPANS)


def test_texts_with_spans():
    spans = [[span._asdict() for span in row][::-1] for row in SPANS]
    assert as_texts_and_spans(TEXTS, spans) == (TEXTS, SPANS)
    assert as_texts_and_spans(TEXTS, SPANS) == (TEXTS, SPANS)
    overlapping = [[Span(0, 7, "PER"), Span(4, 7, "PER")], [], []]
    assert as_texts_and_spans(TEXTS, overlapping) == (TEXTS, overlapping)


def test_datasets():
    pair = tuple(tf.ragged.constant(rows) for rows in (WORDS, TAGS))
    dataset = tf.data.Dataset.from_tensor_slices(pair)
    for given in (dataset, dataset.ragged_batch(2)):
        assert as_texts_and_spans(given, None) == (TEXTS, SPANS)
        assert is_raw_entities(given)
    texts = tf.data.Dataset.from_tensor_slices(TEXTS).batch(2)
    assert as_texts_and_spans(texts, None) == (TEXTS, None)
    with pytest.raises(InputError, match="never ends"):
        as_texts_and_spans(dataset.repeat(), None)


def test_datasets_that_are_read_otherwise_are_named():
    words, tags = tf.constant([["Ann", "left"]]), tf.constant([["B-PER", "O"]])
    spans = tf.constant([[0, 3]])
    wrong = {
        "dense batch": (words[None], tags[None]),
        "padded": (tf.constant([["a", ""]])[None], tf.constant([["O", ""]])[None]),
        "numbers": (words, tf.constant([[1, 0]])),
        "text and spans": (tf.constant(["Ann left"]), spans),
        "text and labels": (tf.constant(["Ann left"]), tf.constant(["PER"])),
        "three parts": (words, tags, tags),
        "deeper": (tf.ragged.constant([[[["a"]]]]), tf.ragged.constant([[[["O"]]]])),
    }
    for elements in wrong.values():
        dataset = tf.data.Dataset.from_tensor_slices(elements)
        with pytest.raises(InputError, match=r"expected pairs \(words, tags\), each a vector of s"):
            as_texts_and_spans(dataset, None)
    dataset = tf.data.Dataset.from_tensors((tf.constant([b"\xff"]), tf.constant(["O"])))
    with pytest.raises(InputError, match="number 0 is not UTF-8"):
        as_texts_and_spans(dataset, None)


def test_what_is_raw():
    assert is_raw_entities("a") and is_raw_entities(["a"]) and is_raw_entities(WORDS)
    assert not is_raw_entities({"token_ids": [[1]]})


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (WORDS, TAGS[:2], "3 texts but 2 lists"),
        ([["a", "b"]], [["O"]], "Sentence 0: it has 2 words but 1 tags"),
        ([["a"], ["b"]], [["O"], ["I-X"]], "Sentence 1: Tag 0, 'I-X', cannot stand at the beginn"),
        ([["a", ""]], [["O", "O"]], "Sentence 0: Word 1 is ''"),
        ([["a", 3]], None, "Word 1 is 3"),
        (["ab"], [[{"start": 1, "end": 3, "label": "X"}]], "Text 0, entity 0: characters 1 to 3"),
        (["ab"], [[{"start": 1, "end": 1, "label": "X"}]], "expected 0 <= start < end <= 2"),
        (["ab"], [[{"start": "0", "end": 1, "label": "X"}]], "characters 0 to 1 are no part"),
        (["ab"], [[{"start": 1, "label": "X"}]], "expected start, end .characters. and label"),
        (["ab"], [["X"]], "entity 0 is 'X'"),
        (
            ["🙂 Rome"],
            [[{"start": 5, "end": 6, "label": "X", "text": "Rome"}]],
            "should read 'Rome', but characters 5 to 6 are 'e'; offsets count Unicode code points",
        ),
    ],
)
def test_bad_input_is_named(x, y, message):
    with pytest.raises(InputError, match=message):
        as_texts_and_spans(x, y)


# "New York-based": the units are New, York, -, based.
TEXT, STARTS, ENDS = "New York-based", [0, 4, 8, 9], [3, 8, 9, 14]


@pytest.mark.parametrize(
    ("spans", "tags", "misfits"),
    [
        ([(0, 8)], "B-X I-X O O", {}),
        ([(0, 14)], "B-X I-X I-X I-X", {}),
        ([(3, 9)], "O B-X I-X O", {}),  # the blank at its begin does not count
        ([(5, 8)], "O B-X O O", {"widened": 1}),
        ([(0, 10)], "B-X I-X I-X I-X", {"widened": 1}),
        ([(3, 4)], "O O O O", {"blank": 1}),
        ([(0, 3), (0, 8)], "B-X I-X O O", {"overlapping": 1}),
        ([(0, 3), (0, 3)], "B-X O O O", {"overlapping": 1}),
        ([(4, 6), (6, 8)], "O B-X O O", {"widened": 1, "overlapping": 1}),
        ([(0, 3), (4, 8)], "B-X B-X O O", {}),
        ([], "O O O O", {}),
    ],
)
def test_spans_become_tags_of_units_and_misfits_are_counted(spans, tags, misfits):
    report = SpanReport()
    given = [Span(a, b, "X") for a, b in spans]
    found, entities = unit_tags(
        TEXT, given, STARTS, ENDS, scheme="IOB2", report=report, where="text 7"
    )
    assert found == tags.split()
    assert report.misfits == misfits and report.spans == len(spans)
    assert len(entities) == tags.count("B-X")
    assert ("text 7" in str(report)) == bool(misfits)


def test_trimmed():
    assert trimmed(" a\u3000b \n", Span(0, 6, "X")) == Span(1, 4, "X")
