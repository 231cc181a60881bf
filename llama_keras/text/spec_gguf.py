"""Tokenizers out of GGUF metadata (keys `tokenizer.*`, as llama.cpp writes them)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_keras.errors import InputError
from llama_keras.text import sentence_piece_proto as sp
from llama_keras.text.spec import TokenizerSpec, end_ids, split_merge

# `tokenizer.ggml.pre` -> our pre-tokenizer.
_PRE_TOKENIZERS = {
    "gpt-2": "gpt2",
    "gpt2": "gpt2",
    "smollm": "smollm",
    "llama-bpe": "llama3",
    "llama3": "llama3",
    "llama-v3": "llama3",
}
# `tokenizer.ggml.token_type`; the numbers are those of SentencePiece's piece kinds.
_CONTROL, _USER_DEFINED = sp.CONTROL, sp.USER_DEFINED


class _Metadata:
    """The metadata with type checks whose errors name the key."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def get(self, key: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        value = self.values.get(key, default)
        if value is not None and not isinstance(value, kind):
            raise InputError(f"GGUF key {key} has the value {value!r} of an unexpected type.")
        return value

    def list(self, key: str, kind: type, size: int | None = None) -> list[Any]:
        value = self.values.get(key)
        if value is None:
            raise InputError(f"The GGUF file has no key {key}: it holds no tokenizer.")
        value = value.tolist() if hasattr(value, "tolist") else list(value)
        if size is not None and len(value) != size:
            raise InputError(f"GGUF key {key} has {len(value)} entries; expected {size}.")
        if not all(isinstance(entry, kind) for entry in value):
            raise InputError(f"GGUF key {key} has entries that are not {kind.__name__}.")
        return value

    def id(self, name: str) -> int | None:
        return self.get(f"tokenizer.ggml.{name}_token_id", int)


def spec_from_gguf(values: Mapping[str, Any]) -> TokenizerSpec:
    """Gives the tokenizer that GGUF metadata describes; see `TokenizerSpec.from_gguf`."""
    metadata = _Metadata(values)
    model = metadata.get("tokenizer.ggml.model", str)
    if model not in _MODELS:
        raise InputError(
            f"GGUF key tokenizer.ggml.model is {model!r}. Known: {', '.join(_MODELS)} "
            "(byte-level BPE and SentencePiece)."
        )
    tokens = metadata.list("tokenizer.ggml.tokens", str)
    kinds = metadata.list("tokenizer.ggml.token_type", int, len(tokens))
    special = {tokens[id_]: id_ for id_, kind in enumerate(kinds) if kind == _CONTROL}
    common = {
        "tokens": tuple(tokens),
        "special_tokens": special,
        "bos_id": metadata.id("bos"),
        "eos_id": metadata.id("eos"),
        "pad_id": metadata.id("padding"),
        "unk_id": metadata.id("unknown"),
        "end_ids": end_ids(special, *map(metadata.id, ("eos", "eot", "eom"))),
        "add_eos": metadata.get("tokenizer.ggml.add_eos_token", bool, False),
        "chat_template": metadata.get("tokenizer.chat_template", str),
    }
    return TokenizerSpec(**common, **_MODELS[model](metadata, tokens, kinds))


def _byte_pair(metadata: _Metadata, tokens: list[str], kinds: list[int]) -> dict[str, Any]:
    name = metadata.get("tokenizer.ggml.pre", str)
    if name not in _PRE_TOKENIZERS:
        raise InputError(
            f"GGUF key tokenizer.ggml.pre is {name!r}. Known pre-tokenizers: "
            f"{', '.join(sorted(_PRE_TOKENIZERS))}."
        )
    llama3 = _PRE_TOKENIZERS[name] == "llama3"
    return {
        "kind": "byte_pair",
        "merges": tuple(map(split_merge, metadata.list("tokenizer.ggml.merges", str))),
        "pre_tokenizer": _PRE_TOKENIZERS[name],
        "user_tokens": {
            tokens[id_]: id_ for id_, kind in enumerate(kinds) if kind == _USER_DEFINED
        },
        # llama.cpp's own rules for this pre-tokenizer.
        "ignore_merges": llama3,
        "add_bos": metadata.get("tokenizer.ggml.add_bos_token", bool, llama3),
    }


def _sentence_piece(metadata: _Metadata, tokens: list[str], kinds: list[int]) -> dict[str, Any]:
    if metadata.get("tokenizer.ggml.precompiled_charsmap", object) is not None:
        raise InputError(
            "GGUF key tokenizer.ggml.precompiled_charsmap: text normalization inside a "
            "SentencePiece model is read only from a tokenizer.model file."
        )
    scores = metadata.list("tokenizer.ggml.scores", float, len(tokens))
    unk_id = metadata.id("unknown")
    if unk_id is None:
        unk_id = next((id_ for id_, kind in enumerate(kinds) if kind == sp.UNKNOWN), -1)
    if not 0 <= unk_id < len(tokens) or kinds[unk_id] != sp.UNKNOWN:
        raise InputError("GGUF key tokenizer.ggml.unknown_token_id names no token of type unknown.")
    pieces = [sp.Piece(*row) for row in zip(tokens, scores, kinds, strict=True)]
    model = sp.write_model(
        pieces,
        add_dummy_prefix=metadata.get("tokenizer.ggml.add_space_prefix", bool, True),
        escape_whitespaces=True,
        remove_extra_whitespaces=metadata.get(
            "tokenizer.ggml.remove_extra_whitespaces", bool, False
        ),
        byte_fallback=sp.BYTE in kinds,
        unk_id=unk_id,
        bos_id=_or_none(metadata.id("bos")),
        eos_id=_or_none(metadata.id("eos")),
    )
    return {
        "kind": "sentence_piece",
        "sentence_piece": model,
        "add_bos": metadata.get("tokenizer.ggml.add_bos_token", bool, True),
    }


def _or_none(id_: int | None) -> int:
    return -1 if id_ is None else id_


_MODELS = {"gpt2": _byte_pair, "llama": _sentence_piece}
