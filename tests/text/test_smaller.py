import pytest

from llama_keras.errors import InputError
from llama_keras.text import Tokenizer
from llama_keras.text.smaller import smaller_spec
from llama_keras.text.spec import TokenizerSpec

SPECIAL = ("<mask>", "<separator>")


@pytest.fixture(scope="module")
def full(smollm2):
    return Tokenizer.from_preset(smollm2)


@pytest.fixture(scope="module")
def small(full):
    return Tokenizer(smaller_spec(full.spec, vocabulary_size=2000, special_tokens=SPECIAL))


def test_text_survives_in_fewer_kinds_of_tokens(full, small):
    assert small.vocabulary_size == 2000
    text = "The quick brown fox jumps over the lazy dog, 今天天气很好 1234!"
    ids = small.encode(text)
    assert small.decode(ids) == text
    assert len(ids) > len(full.encode(text)) and max(ids) < 1998
    assert [small.spec.tokens[id_] for id_ in small.encode("<mask>", parse_special=True)] == [
        "<mask>"
    ]


def test_all_merges_kept_is_the_tokenizer_itself(full):
    same = smaller_spec(full.spec, vocabulary_size=full.vocabulary_size)
    assert same.tokens == full.spec.tokens and same.special_tokens == full.spec.special_tokens
    assert (same.bos_id, same.end_ids) == (full.spec.bos_id, full.spec.end_ids)


def test_tokens_are_those_of_the_merges_that_were_kept(full, small):
    """The kept merges are the first of the larger vocabulary, so each token joins as it did."""
    kept = len(small.spec.merges)
    assert small.spec.merges == full.spec.merges[:kept]
    for text in ("internationalization", " the", "aaaa"):
        pieces = [small.spec.tokens[id_] for id_ in small.encode(text)]
        assert "".join(pieces).replace("Ġ", " ") == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vocabulary_size": 10}, "vocabulary_size must lie in 259 … 259"),
        ({"vocabulary_size": 300}, "received 300"),
        ({"vocabulary_size": 260, "special_tokens": ["<|im_end|>"]}, "'<.im_end.>' already"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(InputError, match=message):
        smaller_spec(TokenizerSpec.tiny(), **arguments)
