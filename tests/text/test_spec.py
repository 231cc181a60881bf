import dataclasses
import json
import re

import pytest

from llama_keras.errors import InputError
from llama_keras.text import Tokenizer, TokenizerSpec
from tests.text.reference import hugging_face

TINY = TokenizerSpec.tiny()
GGUF = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": ["<|im_end|>", "a", "b", "ab", "<x>"],
    "tokenizer.ggml.token_type": [3, 1, 1, 1, 4],
    "tokenizer.ggml.merges": ["a b"],
    "tokenizer.ggml.eos_token_id": 0,
}


def test_gguf(smollm2_spec):
    assert smollm2_spec.pre_tokenizer == "smollm" and len(smollm2_spec.merges) == 48900
    assert (smollm2_spec.add_bos, smollm2_spec.ignore_merges) == (False, False)
    spec = TokenizerSpec.from_gguf(GGUF)
    assert spec.end_ids == (0,) and spec.user_tokens == {"<x>": 4}
    llama3 = TokenizerSpec.from_gguf(
        {**GGUF, "tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.bos_token_id": 1}
    )
    assert llama3.pre_tokenizer == "llama3" and llama3.add_bos and llama3.ignore_merges


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model", "rwkv", "tokenizer.ggml.model is 'rwkv'. Known: gpt2, llama"),
        ("pre", "qwen2", "tokenizer.ggml.pre is 'qwen2'. Known pre-tokenizers: gpt-2"),
        ("pre", None, "tokenizer.ggml.pre is None"),
        ("tokens", None, "no key tokenizer.ggml.tokens"),
        ("tokens", ["a", "a", "b", "ab", "<x>"], "'a' is in the vocabulary twice"),
        ("token_type", [1], "token_type has 1 entries; expected 5"),
        ("merges", ["a c"], "'ac', which is not in the vocabulary"),
        ("merges", ["abc"], "'abc' is not two tokens"),
        ("merges", [3], "entries that are not str"),
        ("eos_token_id", 9, "eos_id has id 9; the vocabulary has ids 0 to 4"),
        ("eos_token_id", "x", "tokenizer.ggml.eos_token_id has the value 'x'"),
        ("add_bos_token", True, "does not name"),
    ],
)
def test_gguf_that_is_refused(key, value, message):
    with pytest.raises(InputError, match=re.escape(message)):
        TokenizerSpec.from_gguf({**GGUF, f"tokenizer.ggml.{key}": value})


def test_json_round_trip(smollm2_spec):
    for spec in (TINY, smollm2_spec, dataclasses.replace(TINY, add_bos=True, pad_id=None)):
        assert TokenizerSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: [], "not a tokenizer saved by llama-keras"),
        (lambda record: {**record, "version": 2}, "version 2"),
        (lambda record: {**record, "color": 1}, "unknown fields: color"),
        (lambda record: {**record, "tokens": 3}, "damaged"),
        (lambda record: {**record, "tokens": []}, "empty vocabulary"),
        (lambda record: {**record, "merges": ["x"]}, "not two tokens"),
        (lambda record: {**record, "kind": "word"}, "Unknown kind of tokenizer 'word'"),
        (lambda record: {**record, "kind": []}, "f.json"),
        (lambda record: {**record, "bos_id": "1"}, "f.json"),
        (lambda record: {**record, "sentence_piece": "?"}, "damaged"),
        (lambda record: {**record, "kind": "sentence_piece"}, "needs the bytes"),
        (lambda record: {**record, "pre_tokenizer": "bert"}, "gpt2, llama3, smollm"),
        (lambda record: {**record, "special_tokens": {"": 1}}, "without text"),
    ],
)
def test_json_that_is_refused(change, message):
    text = json.dumps(change(json.loads(TINY.to_json())))
    with pytest.raises(InputError, match=message):
        TokenizerSpec.from_json(text, name="f.json")
    with pytest.raises(InputError, match=r"f\.json is not JSON"):
        TokenizerSpec.from_json(text[:-1], name="f.json")


def write_directory(path, spec, *, pairs=False, change=None, config=None):
    """Writes what `tokenizers` itself writes, with merges in either of its forms."""
    record = json.loads(hugging_face(spec, parse_special=True).to_str())
    if not pairs:
        record["model"]["merges"] = [" ".join(merge) for merge in record["model"]["merges"]]
    if change:
        change(record)
    (path / "tokenizer.json").write_text(json.dumps(record))
    if config:
        (path / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def small_spec():
    """The bytes, two merges, a special token."""
    tokens = (*TINY.tokens, "ab", "\u0120ab")
    return dataclasses.replace(
        TINY,
        tokens=tokens,
        merges=(("a", "b"), ("\u0120", "ab")),
        bos_id=None,
        chat_template=None,
        pad_id=None,
        end_ids=(2, 0),
    )


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("name", ["gpt2", "smollm", "llama3"])
def test_hugging_face_directory(small_spec, tmp_path, name, pairs):
    spec = dataclasses.replace(small_spec, pre_tokenizer=name, ignore_merges=name == "llama3")
    config = {"eos_token": {"content": "<|im_end|>"}, "chat_template": "{{ messages }}"}
    write_directory(tmp_path, spec, pairs=pairs, config=config)
    read = TokenizerSpec.from_hugging_face(tmp_path)
    assert read == dataclasses.replace(spec, chat_template="{{ messages }}")


def test_hugging_face_files_beside_it(small_spec, tmp_path):
    def change(record):
        record["post_processor"] = {
            "type": "Sequence",
            "processors": [
                {"type": "ByteLevel", "trim_offsets": False},
                {
                    "type": "TemplateProcessing",
                    "single": [
                        {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}},
                        {"Sequence": {"id": "A", "type_id": 0}},
                    ],
                },
            ],
        }
        token = {"id": 261, "content": "<tool>", "special": False, "normalized": False}
        record["added_tokens"].append({**token, "lstrip": False, "rstrip": False})

    write_directory(tmp_path, small_spec, change=change)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 1]}')
    (tmp_path / "chat_template.jinja").write_text("é")
    spec = TokenizerSpec.from_hugging_face(tmp_path)
    assert (spec.bos_id, spec.add_bos, spec.end_ids) == (1, True, (2, 1, 0))
    assert spec.user_tokens == {"<tool>": 261} and spec.chat_template == "é"
    assert Tokenizer(spec).encode(" ab<tool>") == [1, 260, 261]


def _set(*keys, value):
    def change(record):
        for key in keys[:-1]:
            record = record[key]
        record[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("normalizer", value={"type": "NFC"}), r'normalizer is \{"type": "NFC"\}'),
        (_set("pre_tokenizer", value={"type": "Whitespace"}), 'pre_tokenizer is .*Whitespace"'),
        (_set("pre_tokenizer", value=None), "pre_tokenizer is null"),
        (_set("pre_tokenizer", "add_prefix_space", value=True), '"add_prefix_space": true'),
        (_set("post_processor", value={"type": "Bert"}), "post_processor"),
        (_set("decoder", value={"type": "WordPiece"}), "decoder"),
        (_set("model", value={"type": "WordPiece"}), "model.type"),
        (_set("model", "byte_fallback", value=True), "byte_fallback"),
        (_set("model", "merges", value=[["a", "b", "c"]]), "not two tokens"),
        (_set("model", "vocab", "a", value=70000000), "an id of its own"),
        (_set("model", "vocab", "a", value=1), "an id of its own"),
        (_set("added_tokens", 0, "lstrip", value=True), "lstrip"),
        (_set("added_tokens", value=[3]), "damaged"),
        (_set("added_tokens", 0, "content", value=""), "added_tokens"),
        (_set("model", "vocab", value=None), "vocab"),
    ],
)
def test_hugging_face_that_is_refused(small_spec, tmp_path, change, message):
    write_directory(tmp_path, small_spec, change=change)
    with pytest.raises(InputError, match=message):
        TokenizerSpec.from_hugging_face(tmp_path)


def test_hugging_face_directory_without_tokenizer(tmp_path):
    with pytest.raises(InputError, match="neither tokenizer.json nor tokenizer.model"):
        TokenizerSpec.from_hugging_face(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match=r"tokenizer\.json cannot be read as JSON"):
        TokenizerSpec.from_hugging_face(tmp_path)
    with pytest.raises(InputError, match="not a directory"):
        TokenizerSpec.from_hugging_face(tmp_path / "nothing")
