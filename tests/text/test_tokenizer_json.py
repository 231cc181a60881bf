"""tokenizer.json as we write it, read by Hugging Face's package and by ourselves."""

import dataclasses
import json

import pytest
import tokenizers as hf

from llama_keras.errors import InputError
from llama_keras.text import Tokenizer, TokenizerSpec
from llama_keras.text.tokenizer_json import tokenizer_json
from tests.text.reference import holds_missing_byte
from tests.text.strings import generate


def read(spec: TokenizerSpec) -> hf.Tokenizer:
    found = hf.Tokenizer.from_str(json.dumps(tokenizer_json(spec)))
    found.encode_special_tokens = True
    return found


@pytest.mark.parametrize("name", ["gpt2", "smollm", "llama3"])
def test_ids_are_ours(tokenizers, name):
    texts = [text for text in generate(600, seed=11) if not holds_missing_byte(text)]
    ours = tokenizers[name]
    theirs = [found.ids for found in read(ours.spec).encode_batch(texts)]
    assert theirs == ours.encode(texts)


def test_frames_and_user_tokens():
    spec = dataclasses.replace(
        TokenizerSpec.tiny(),
        tokens=(*TokenizerSpec.tiny().tokens, "<user>"),
        user_tokens={"<user>": 259},
        add_bos=True,
        add_eos=True,
    )
    texts = ["", "a<user>b", "<|im_end|>", "née"]
    expected = Tokenizer(spec).encode(texts)
    assert [found.ids for found in read(spec).encode_batch(texts)] == expected


def test_our_own_reader_takes_it_back(tmp_path, smollm2_spec):
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer_json(smollm2_spec)))
    found = TokenizerSpec.from_hugging_face(tmp_path)
    for name in ("tokens", "merges", "pre_tokenizer", "special_tokens", "user_tokens", "add_bos"):
        assert getattr(found, name) == getattr(smollm2_spec, name)


def test_other_kinds_are_refused():
    spec = TokenizerSpec.tiny()
    object.__setattr__(spec, "kind", "sentence_piece")
    with pytest.raises(InputError, match="this tokenizer is sentence_piece"):
        tokenizer_json(spec)
