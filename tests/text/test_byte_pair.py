import dataclasses
import json
import unicodedata
from pathlib import Path

import pytest
import tensorflow as tf

from llama_keras.text import Tokenizer, TokenizerSpec
from llama_keras.text.byte_pair import BytePairGraph
from tests.text.reference import PRE_TOKENIZERS, holds_missing_byte, hugging_face
from tests.text.strings import generate

GOLDEN = Path(__file__).parent / "golden" / "byte_pair.json"


@pytest.mark.parametrize("parse_special", [False, True])
@pytest.mark.parametrize("name", list(PRE_TOKENIZERS))
def test_golden_ids(tokenizers, name, parse_special):
    rows = [
        row
        for row in json.loads(GOLDEN.read_text())["rows"]
        if (row["pre_tokenizer"], row["parse_special"]) == (name, parse_special)
    ]
    assert len(rows) > 20
    found = tokenizers[name].encode([row["text"] for row in rows], parse_special=parse_special)
    assert found == [row["ids"] for row in rows]


@pytest.mark.parametrize("parse_special", [False, True])
@pytest.mark.parametrize("name", list(PRE_TOKENIZERS))
def test_generated_strings_equal_hugging_face(tokenizers, name, parse_special):
    texts = [text for text in generate(3000, seed=11) if not holds_missing_byte(text)]
    assert len(texts) > 2000
    reference = hugging_face(tokenizers[name].spec, parse_special=parse_special)
    expected = reference.encode_batch(texts, add_special_tokens=False)
    found = tokenizers[name].encode(texts, offsets=True, parse_special=parse_special)
    for text, ours, theirs in zip(texts, found, expected, strict=True):
        assert ours.ids == theirs.ids, repr(text)
        assert ours.offsets == theirs.offsets, repr(text)
    plain = tokenizers[name].encode(texts, parse_special=parse_special)
    assert plain == [encoding.ids for encoding in found]


@pytest.mark.parametrize("name", list(PRE_TOKENIZERS))
def test_words_of_ordinary_length_text(tokenizers, name, repository):
    texts = [(repository / "pyproject.toml").read_text(), "x" * 20_000, "ab " * 5_000, " " * 3_000]
    expected = hugging_face(tokenizers[name].spec).encode_batch(texts, add_special_tokens=False)
    assert tokenizers[name].encode(texts) == [encoding.ids for encoding in expected]


@pytest.mark.parametrize("name", list(PRE_TOKENIZERS))
def test_classes_of_all_characters_equal_the_references(name):
    spec = dataclasses.replace(TokenizerSpec.tiny(), pre_tokenizer=name)
    probes = ["a", "1", ".", " "]
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    characters = [char for char in characters if unicodedata.category(char) not in ("Cn", "Co")] + [
        "\u1c89",
        "\ua7da",
        "\U00010d40",
        "\U00011bc0",
        "\U00016d40",
        "\U0002ebf0",
        "\U0002ee5d",
    ]
    graph = BytePairGraph(spec)
    reference = PRE_TOKENIZERS[name]
    texts = ["".join(f"{probe}{char}{probe}" for probe in probes) for char in characters[::7]]
    words = graph.cut(tf.constant(texts))
    for text, found in zip(texts, words.to_list(), strict=True):
        expected = [text[start:end] for _, (start, end) in reference.pre_tokenize_str(text)]
        assert [word.decode() for word in found if word] == expected, repr(text)


def test_ignore_merges_takes_whole_words(smollm2_spec):
    word = "\u0120zzqqzzqq"  # No merges make it.
    spec = dataclasses.replace(
        smollm2_spec, tokens=(*smollm2_spec.tokens, word), ignore_merges=True
    )
    tokenizer = Tokenizer(spec)
    texts = [" zzqqzzqq", "a zzqqzzqq zzqqzzqqx\n zzqqzzqq", *generate(500, seed=3)]
    texts = [text for text in texts if not holds_missing_byte(text)]
    expected = hugging_face(spec).encode_batch(texts, add_special_tokens=False)
    assert tokenizer.encode(texts) == [encoding.ids for encoding in expected]
    assert tokenizer.encode(" zzqqzzqq") == [len(spec.tokens) - 1]
    without = Tokenizer(dataclasses.replace(spec, ignore_merges=False))
    assert len(without.encode(" zzqqzzqq")) > 1


def test_token_without_merge_is_never_made():
    tiny = TokenizerSpec.tiny()
    tokens = (*tiny.tokens, "bc", "ab", "abcd", "cd")
    spec = dataclasses.replace(tiny, tokens=tokens, merges=(("a", "b"), ("c", "d")))
    text = "abc bc abcd bcd"
    expected = hugging_face(spec).encode(text).ids
    assert Tokenizer(spec).encode(text) == expected
    assert not {tokens.index("bc"), tokens.index("abcd")} & set(expected)
    whole = dataclasses.replace(spec, ignore_merges=True)
    expected = hugging_face(whole).encode("abcd").ids
    assert Tokenizer(whole).encode("abcd") == expected == [tokens.index("abcd")]


def test_missing_byte_separates_its_neighbours_and_is_dropped(smollm2_tokenizer):
    found = smollm2_tokenizer.encode("ab\x04cd\x04", offsets=True)
    assert found.ids == smollm2_tokenizer.encode("ab") + smollm2_tokenizer.encode("cd")
    assert found.offsets[-1][1] == 5
    assert smollm2_tokenizer.decode(found.ids) == "abcd"
    assert smollm2_tokenizer.encode("\x04") == []


def test_missing_byte_becomes_the_unknown_token_where_there_is_one(smollm2_spec):
    from tokenizers import Tokenizer as Reference
    from tokenizers import models

    spec = dataclasses.replace(smollm2_spec, missing_byte_id=0)
    vocabulary = {token: index for index, token in enumerate(spec.tokens)}
    model = models.BPE(vocabulary, list(spec.merges), unk_token="<|endoftext|>")
    reference = Reference(model)
    reference.pre_tokenizer = PRE_TOKENIZERS[spec.pre_tokenizer]
    text = "ab\x04cd \x06\x13 x\U0010ffff\U000fffff"
    assert Tokenizer(spec).encode(text) == reference.encode(text).ids


def test_user_tokens_are_always_seen_and_special_tokens_on_demand():
    tiny = TokenizerSpec.tiny()
    spec = dataclasses.replace(
        tiny,
        tokens=(*tiny.tokens, "<tool>", "<tool>>"),
        user_tokens={"<tool>": 259, "<tool>>": 260},
    )
    tokenizer = Tokenizer(spec)
    text = "<tool><|im_end|><tool>>é"
    assert tokenizer.encode(text, parse_special=True) == [259, 2, 260, *tokenizer.encode("é")]
    plain = tokenizer.encode(text, offsets=True)
    assert plain.ids[0] == 259 and plain.offsets[0] == (0, 6) and 2 not in plain.ids
    assert tokenizer.decode(plain.ids) == text


def test_merges_of_a_trained_vocabulary(repository):
    from tokenizers import Tokenizer as Reference
    from tokenizers import models, pre_tokenizers, trainers

    reference = Reference(models.BPE())
    reference.pre_tokenizer = PRE_TOKENIZERS["gpt2"]
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    files = sorted((repository / "llama_keras").rglob("*.py"))
    reference.train_from_iterator((file.read_text() for file in files), trainer)
    model = json.loads(reference.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    spec = TokenizerSpec(
        kind="byte_pair",
        tokens=tuple(tokens),
        merges=tuple(tuple(merge) for merge in model["merges"]),
    )
    texts = generate(1500, seed=5) + [file.read_text() for file in files[:20]]
    expected = reference.encode_batch(texts, add_special_tokens=False)
    tokenizer = Tokenizer(spec)
    found = tokenizer.encode(texts)
    assert found == [encoding.ids for encoding in expected]
    assert tokenizer.decode(found) == texts


def test_texts_do_not_depend_on_their_batch(smollm2_tokenizer):
    texts = generate(200, seed=8)
    assert smollm2_tokenizer.encode(texts) == [smollm2_tokenizer.encode(text) for text in texts]
    assert smollm2_tokenizer.encode([]) == []


def test_invalid_utf8_counts_as_the_replacement_character(smollm2_tokenizer):
    data = [b"ok", b"a\xffb", b"\xe4\xbd", b"\xc0\x80 \xf8\xf9\xfd \xfe", b"\xed\xa0\x80x", b""]
    expected = smollm2_tokenizer.encode([item.decode("utf-8", "replace") for item in data])
    assert smollm2_tokenizer.graph.tokenize(tf.constant(data)).to_list() == expected
