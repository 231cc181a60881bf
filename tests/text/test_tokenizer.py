import dataclasses
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_keras.errors import InputError
from llama_keras.text import StreamDecoder, Tokenizer, TokenizerSpec
from tests.text.reference import holds_missing_byte
from tests.text.strings import generate

# One graph call a text is a millisecond or so.
QUICK = settings(max_examples=60, deadline=None)
TEXTS = st.lists(st.text(st.characters(codec="utf-8"), max_size=60), min_size=1, max_size=8)


def test_end_and_pad_ids(smollm2_tokenizer, tiny):
    assert smollm2_tokenizer.vocabulary_size == 49152
    assert (smollm2_tokenizer.bos_id, smollm2_tokenizer.eos_id, smollm2_tokenizer.pad_id) == (
        1,
        2,
        2,
    )
    assert set(smollm2_tokenizer.end_ids) == {2, 0}  # <|im_end|>, <|endoftext|>
    assert (tiny.vocabulary_size, tiny.pad_id) == (259, 0)
    assert smollm2_tokenizer.encode("a") == [81]  # no begin-of-text
    assert smollm2_tokenizer.encode("a", add_bos=True, add_eos=True) == [1, 81, 2]


@QUICK
@given(texts=TEXTS)
def test_offsets_hold_the_tokens(smollm2_tokenizer, texts):
    for text, found in zip(texts, smollm2_tokenizer.encode(texts, offsets=True), strict=True):
        assert len(found.ids) == len(found.offsets)
        before = (0, 0)
        for id_, (start, end) in zip(found.ids, found.offsets, strict=True):
            assert 0 <= start < end <= len(text)
            assert start >= before[0] and end >= before[1]
            # Whole characters round what the id spells.
            assert smollm2_tokenizer.token_bytes.texts[id_] in text[start:end].encode()
            before = (start, end)
        covered = {at for start, end in found.offsets for at in range(start, end)}
        left = [char for at, char in enumerate(text) if at not in covered]
        assert all(holds_missing_byte(char) for char in left)


@QUICK
@given(texts=TEXTS)
def test_decode_gives_the_text_back(tiny, texts):
    ids = tiny.encode(texts)
    assert tiny.decode(ids) == texts
    # Each byte is a token here, so the offsets are known without the tokenizer.
    for text, found in zip(texts, tiny.encode(texts, offsets=True), strict=True):
        expected = [(at, at + 1) for at, char in enumerate(text) for _ in char.encode()]
        assert found.offsets == expected


@QUICK
@given(rows=st.lists(st.lists(st.integers(0, 49200), max_size=20), min_size=1, max_size=5))
def test_decode_of_any_ids_is_the_same_in_graph_and_stream(smollm2_tokenizer, rows):
    texts = smollm2_tokenizer.decode(rows)
    in_graph = smollm2_tokenizer.detokenize(tf.ragged.constant(rows, tf.int32, ragged_rank=1))
    assert [text.decode() for text in in_graph.numpy()] == texts
    for skip in (False, True):
        expected = smollm2_tokenizer.decode(rows[0], skip_special_tokens=skip)
        stream = StreamDecoder(smollm2_tokenizer, skip_special_tokens=skip)
        assert "".join([*map(stream.push, rows[0]), stream.finish()]) == expected


def test_stream_holds_back_incomplete_characters(tiny):
    stream = StreamDecoder(tiny)
    pieces = [stream.push(id_) for id_ in tiny.encode("a😀b")]
    assert pieces == ["a", "", "", "", "😀", "b"]
    for id_ in tiny.encode("😀")[:2]:
        assert stream.push(id_) == ""
    assert stream.finish() == "\ufffd"
    assert stream.push(tiny.special_tokens["<|im_end|>"]) == "" == stream.finish()


def test_decode_takes_what_models_give(tiny):
    assert tiny.decode(np.array([[72 + 3, 105 + 3], [33 + 3, 2]])) == ["Hi", "!<|im_end|>"]
    assert tiny.decode(tf.constant([75, 108])) == "Hi"
    assert tiny.decode([36, 2, 400], skip_special_tokens=True) == "!\ufffd"
    assert tiny.decode([]) == "" and tiny.decode([[], [36]]) == ["", "!"]
    with pytest.raises(InputError, match="-1"):
        tiny.decode([-1])
    with pytest.raises(InputError, match="whole numbers"):
        tiny.decode(["a"])


def test_special_tokens_in_a_text(smollm2_tokenizer):
    text = "é<|im_start|>😀<|im_end|>"
    found = smollm2_tokenizer.encode(text, parse_special=True, offsets=True)
    spans = {id_: text[a:b] for id_, (a, b) in zip(found.ids, found.offsets, strict=True)}
    assert spans[1] == "<|im_start|>" and spans[2] == "<|im_end|>"
    assert not {1, 2} & set(smollm2_tokenizer.encode(text))
    assert smollm2_tokenizer.decode(found.ids) == text
    assert smollm2_tokenizer.decode(found.ids, skip_special_tokens=True) == "é😀"


def test_lone_surrogates_become_the_replacement_character(tiny):
    found = tiny.encode("a\ud800b", offsets=True)
    assert found.ids == tiny.encode("a\ufffdb")
    assert found.offsets == [(0, 1), (1, 2), (1, 2), (1, 2), (2, 3)]


def test_bos_and_eos_have_no_width():
    tokenizer = Tokenizer(dataclasses.replace(TokenizerSpec.tiny(), add_bos=True, add_eos=True))
    found = tokenizer.encode(["é!", ""], offsets=True)
    assert found[0].ids[0] == 1 and found[0].ids[-1] == 2
    assert found[0].offsets == [(0, 0), (0, 1), (0, 1), (1, 2), (2, 2)]
    assert found[1].ids == [1, 2] and found[1].offsets == [(0, 0), (0, 0)]
    assert tokenizer.encode("!", add_bos=False) == [36, 2]
    assert tokenizer(tf.constant(["!"])).to_list() == [[1, 36, 2]]


def test_what_is_no_text_is_refused(tiny):
    with pytest.raises(InputError, match="Text 1 is 3 of type int"):
        tiny.encode(["a", 3])
    with pytest.raises(InputError, match="from_preset"):
        Tokenizer().encode("a")


def test_in_a_dataset(smollm2_tokenizer):
    texts = generate(20, seed=1)
    dataset = tf.data.Dataset.from_tensor_slices(texts).batch(8).map(smollm2_tokenizer)
    assert [row for batch in dataset for row in batch.to_list()] == smollm2_tokenizer.encode(texts)


def test_keras_file_carries_the_tokenizer(smollm2_tokenizer, tmp_path):
    @keras.saving.register_keras_serializable(package="test_tokenizer")
    class Counter(keras.Model):
        def __init__(self, tokenizer, **kwargs):
            super().__init__(**kwargs)
            self.tokenizer = tokenizer
            self.dense = keras.layers.Dense(2)

        def call(self, inputs):
            return self.dense(inputs)

        def get_config(self):
            config = keras.saving.serialize_keras_object(self.tokenizer)
            return {**super().get_config(), "tokenizer": config}

        @classmethod
        def from_config(cls, config):
            tokenizer = keras.saving.deserialize_keras_object(config.pop("tokenizer"))
            return cls(tokenizer, **config)

    model = Counter(smollm2_tokenizer)
    model(np.zeros((1, 3), "float32"))
    model.save(tmp_path / "model.keras")
    loaded: Any = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.tokenizer.spec == smollm2_tokenizer.spec
    assert loaded.tokenizer.encode("Hello there") == smollm2_tokenizer.encode("Hello there")


def test_directory_round_trip(smollm2_tokenizer, tmp_path):
    smollm2_tokenizer.save_to_directory(tmp_path / "saved")
    loaded = Tokenizer.from_preset(tmp_path / "saved")
    assert loaded.spec == smollm2_tokenizer.spec
    assert [path.name for path in (tmp_path / "saved").iterdir()] == ["llama_keras_tokenizer.json"]
    with pytest.raises(InputError, match="save_to_directory"):
        Tokenizer.load_from_directory(tmp_path / "nothing")


def test_presets(smollm2, smollm2_tokenizer):
    assert Tokenizer.from_preset("smollm2-135m-instruct").spec == smollm2_tokenizer.spec
    assert Tokenizer.from_preset(smollm2).spec == smollm2_tokenizer.spec
    with pytest.raises(InputError):
        Tokenizer.from_preset("no-such-model")
