"""Masked texts to ids in the graph against `tasks.mask_tokens`, which does it in Python."""

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_keras.serving.masked_texts import encode_masked
from llama_keras.tasks import mask_tokens
from llama_keras.text import Tokenizer
from llama_keras.text.cleaning import get_cleaning
from tests.text.sentence_piece_models import KINDS, spec_of, train

PARTS = ("<mask>", " <mask>", " ", "  ", "\n", "\u3000", "\x1c", "Ab", "née", "天", "🙂", "<", "\0")
CLEANINGS = {"none": None, "some": ["lower", "remove_stop_words", "collapse_whitespace"]}


@pytest.fixture(scope="module", params=["llama-tiny", "llama"])
def tokenizer(request):
    if request.param == "llama-tiny":
        return Tokenizer.from_preset("llama-tiny")
    repository = request.getfixturevalue("repository")
    return Tokenizer(spec_of(train(repository, **KINDS["llama"])))


@pytest.fixture(scope="module", params=CLEANINGS)
def both(request, tokenizer):
    """Gives the ids of texts by Python and by the graph."""
    cleaning = get_cleaning(CLEANINGS[request.param])
    options = {"mask_id": 2, "cleaning": cleaning}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def graph(texts):
        rows = encode_masked(tokenizer, texts, **options)
        return rows, encode_masked(tokenizer, texts, add_bos=False, **options)

    def run(texts):
        expected = [
            mask_tokens.encode_masked(tokenizer, texts, add_bos=add_bos, **options)
            for add_bos in (None, False)
        ]
        found = graph(tf.constant(texts, tf.string))
        return expected, [rows.to_list() for rows in found]

    return run


@settings(max_examples=25, deadline=None)
@given(texts=st.lists(st.lists(st.sampled_from(PARTS), max_size=7).map("".join), max_size=5))
def test_the_graph_gives_the_ids_of_python(both, texts):
    expected, found = both(texts)
    assert found == expected


def test_bytes_that_are_no_text(tokenizer):
    broken = tf.constant([b"a\xff <mask>\xe4\xbb"])
    expected = mask_tokens.encode_masked(tokenizer, ["a\ufffd <mask>\ufffd"], mask_id=2)
    assert encode_masked(tokenizer, broken, mask_id=2).to_list() == expected
