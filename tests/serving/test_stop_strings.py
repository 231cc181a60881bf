"""The graph's texts and cuts against `Completion`, which reads token by token in Python."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_keras.serving.stop_strings import answers, pieces_of
from llama_keras.tasks.completion import Completion
from llama_keras.text import Tokenizer
from tests.text.sentence_piece_models import KINDS, spec_of, train


@pytest.fixture(scope="module", params=["llama-tiny", "smollm2", "llama", "no_prefix"])
def tokenizer(request):
    if request.param == "llama-tiny":
        return Tokenizer.from_preset("llama-tiny")
    if request.param == "smollm2":
        return Tokenizer.from_preset(request.getfixturevalue("smollm2"))
    repository = request.getfixturevalue("repository")
    return Tokenizer(spec_of(train(repository, **KINDS[request.param])))


@pytest.fixture(scope="module")
def graph(tokenizer):
    """Gives (text, tokens kept, found) for rows of one length."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], tf.int32),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None, None], tf.string),
            tf.TensorSpec([None], tf.int32),
        ]
    )
    def run(tokens, before, stop, counts):
        pieces = pieces_of(tokenizer.graph.texts, tokens, before=before, counts=counts)
        at_end = answers(pieces, counts, stop, at_end=True)
        return *at_end, answers(pieces, counts, stop, at_end=False).found

    return run


def by_hand(tokenizer, ids, *, before, stop):
    """Gives (text, tokens kept, found) and whether a stop string was found before the end."""
    row = Completion(tokenizer, prompt=[before], end_ids=(), stop=stop)
    row.push(ids, [0.0] * len(ids))
    early = row.finished
    row.finish()
    answer = row.result()
    return answer.text, len(answer.token_ids), answer.finish_reason == "stop", early


def check(tokenizer, graph, rows, *, before, stops):
    width = max(1, *map(len, rows))
    tokens = np.full((len(rows), width), -1, "int32")
    for index, ids in enumerate(rows):
        tokens[index, : len(ids)] = ids
    most = max(map(len, stops))
    stop = [[*strings, *[""] * (most - len(strings))] for strings in stops]
    stop = tf.reshape(tf.constant(stop, tf.string), [len(rows), most])
    found = graph(tokens, np.array(before, "int32"), stop, [len(ids) for ids in rows])
    got = list(zip(*(part.numpy().tolist() for part in found), strict=True))
    for index, ids in enumerate(rows):
        expected = by_hand(tokenizer, ids, before=before[index], stop=stops[index])
        assert (got[index][0].decode(), *got[index][1:]) == expected


TEXT = st.text(alphabet="ab \n é日🙂\ufffd", max_size=12)
STOPS = st.lists(st.text(alphabet="ab é日", min_size=1, max_size=3), max_size=3)
PART = st.one_of(
    TEXT.map(lambda text: ("text", text)), st.integers(0, 10**6).map(lambda n: ("id", n))
)
ROW = st.tuples(st.lists(PART, max_size=6), STOPS, st.integers(0, 10**6))


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(ROW, min_size=1, max_size=5))
def test_any_tokens_and_any_stop_strings(tokenizer, graph, rows):
    size = tokenizer.vocabulary_size + 2  # embedding tables are often padded
    ids = [
        [
            token
            for kind, value in parts
            for token in (
                tokenizer.encode(value, add_bos=False) if kind == "text" else [value % size]
            )
        ]
        for parts, _, _ in rows
    ]
    before = [last % tokenizer.vocabulary_size for _, _, last in rows]
    # A token that ends within a character leaves bytes for the answer, which no prompt does.
    before = [last if _ends_whole(tokenizer, last) else tokenizer.pad_id for last in before]
    check(tokenizer, graph, ids, before=before, stops=[stops for _, stops, _ in rows])


def _ends_whole(tokenizer, token_id):
    data = tokenizer.token_bytes.texts[token_id]
    return (data + b"a").decode("utf-8", "replace") == data.decode("utf-8", "replace") + "a" and (
        not data or data[-1] < 0xC2
    )


# Without half a surrogate (ED A0), of which CPython alone shows nothing before its third byte.
BROKEN = [b"\xe4\xbd", b"\xff", b"\xf0\x9f\x98", b"\xc3", b"\xe0\x80", b"\xef", b"a", b"\xbd"]


@settings(max_examples=150, deadline=None)
@given(parts=st.lists(st.sampled_from(BROKEN), max_size=6), data=st.data())
def test_bytes_that_are_no_text(parts, data):
    # Every byte is a token of llama-tiny.
    tokenizer = Tokenizer.from_preset("llama-tiny")
    by_byte = {text: id_ for id_, text in enumerate(tokenizer.token_bytes.texts) if len(text) == 1}
    ids = [by_byte[bytes([byte])] for part in parts for byte in part]
    stops = data.draw(st.lists(st.sampled_from(["\ufffd", "a\ufffd", "\ufffda", "佽"]), max_size=2))
    texts = tokenizer.graph.texts
    tokens = np.array([ids or [-1]], "int32")
    pieces = pieces_of(texts, tokens, before=np.array([5]), counts=np.array([len(ids)]))
    stop = tf.reshape(tf.constant(stops, tf.string), [1, len(stops)])
    at_end = answers(pieces, tf.constant([len(ids)]), stop, at_end=True)
    early = answers(pieces, tf.constant([len(ids)]), stop, at_end=False).found
    got = (bytes(at_end.text[0].numpy()).decode(), int(at_end.counts[0]), bool(at_end.found[0]))
    expected = by_hand(tokenizer, ids, before=5, stop=stops)
    assert (*got, bool(early[0])) == expected
