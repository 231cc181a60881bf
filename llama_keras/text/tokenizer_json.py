"""Byte-level tokenizers written as Hugging Face's tokenizer.json, for programs without TensorFlow.

The file gives our ids, but for bytes that no token of the vocabulary spells: Hugging Face drops
them before merging, which joins their neighbours.
"""

from __future__ import annotations

from typing import Any

from llama_keras.errors import InputError
from llama_keras.text.pre_tokenizers import LLAMA3_PATTERN
from llama_keras.text.spec import TokenizerSpec


def _bytes(use_regex: bool) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def _sequence(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(parts)}


_LLAMA3_SPLIT = {
    "type": "Split",
    "pattern": {"Regex": LLAMA3_PATTERN},
    "behavior": "Isolated",
    "invert": False,
}
# name of `pre_tokenizers.PRE_TOKENIZERS` -> Hugging Face's spelling of it
_PRE_TOKENIZERS: dict[str, dict[str, Any]] = {
    "gpt2": _bytes(True),
    "smollm": _sequence({"type": "Digits", "individual_digits": True}, _bytes(True)),
    "llama3": _sequence(_LLAMA3_SPLIT, _bytes(False)),
}


def tokenizer_json(spec: TokenizerSpec) -> dict[str, Any]:
    """Gives a byte-pair tokenizer as the content of a tokenizer.json.

    The reader sees special tokens in a text, unless it is told not to
    (`tokenizers.Tokenizer.encode_special_tokens = True`), which is our own rule.

    Args:
        spec: of kind "byte_pair".

    Raises:
        InputError: another kind; a SentencePiece model has a file of its own.
    """
    if spec.kind != "byte_pair":
        raise InputError(
            f"tokenizer.json is written for byte pairs; this tokenizer is {spec.kind}."
        )
    added = [(id_, text, True) for text, id_ in spec.special_tokens.items()]
    added += [(id_, text, False) for text, id_ in spec.user_tokens.items()]
    missing = spec.missing_byte_id
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(*entry) for entry in sorted(added)],
        "normalizer": None,
        "pre_tokenizer": _PRE_TOKENIZERS[spec.pre_tokenizer],
        "post_processor": _framing(spec),
        "decoder": _bytes(True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None if missing is None else spec.tokens[missing],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": spec.ignore_merges,
            "vocab": {token: id_ for id_, token in enumerate(spec.tokens)},
            "merges": [list(merge) for merge in spec.merges],
        },
    }


def _added(id_: int, text: str, special: bool) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": id_, "content": text, **flags, "special": special}


def _framing(spec: TokenizerSpec) -> dict[str, Any] | None:
    ids = [spec.bos_id if spec.add_bos else None, spec.eos_id if spec.add_eos else None]
    if ids == [None, None]:
        return None
    begin, end = ([] if id_ is None else [_special(spec, id_)] for id_ in ids)
    texts = {spec.tokens[id_]: id_ for id_ in ids if id_ is not None}
    return {
        "type": "TemplateProcessing",
        "single": [*begin, {"Sequence": {"id": "A", "type_id": 0}}, *end],
        "pair": [
            *begin,
            {"Sequence": {"id": "A", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 1}},
            *end,
        ],
        "special_tokens": {
            text: {"id": text, "ids": [id_], "tokens": [text]} for text, id_ in texts.items()
        },
    }


def _special(spec: TokenizerSpec, id_: int) -> dict[str, Any]:
    return {"SpecialToken": {"id": spec.tokens[id_], "type_id": 0}}
