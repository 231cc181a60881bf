"""Everything that defines a tokenizer, as one record that travels as JSON."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from llama_keras.errors import InputError
from llama_keras.text.byte_alphabet import BYTE_TO_CHAR
from llama_keras.text.pre_tokenizers import pre_tokenizer
from llama_keras.text.sentence_piece_proto import BYTE, read_model

FORMAT = "llama_keras.tokenizer"
VERSION = 1

# Tokens that end an answer wherever a vocabulary has them among its special tokens.
END_TOKENS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "</s>",
)


@dataclass(frozen=True, kw_only=True)
class TokenizerSpec:
    """The definition of a tokenizer: vocabulary, rules, special tokens, chat template.

    Raises:
        InputError: a value is inconsistent; the message names it.

    Example:

    ```python
    spec = TokenizerSpec.tiny()
    assert spec.tokens[spec.special_tokens["<|im_end|>"]] == "<|im_end|>"
    assert TokenizerSpec.from_json(spec.to_json()) == spec
    ```
    """

    kind: Literal["byte_pair", "sentence_piece"]
    """Byte-level byte pairs (GPT-2, SmolLM, Llama 3) or SentencePiece (Llama 1, 2)."""
    tokens: tuple[str, ...]
    """The vocabulary in id order; byte pairs are spelled in GPT-2's byte alphabet."""
    merges: tuple[tuple[str, str], ...] = ()
    """Byte pairs only: which two tokens to join, most urgent first."""
    pre_tokenizer: str = "gpt2"
    """Byte pairs only: name in `pre_tokenizers.PRE_TOKENIZERS`."""
    ignore_merges: bool = False
    """Byte pairs only: a word that is itself a token becomes it, whatever the merges say."""
    missing_byte_id: int | None = None
    """Byte pairs only: what a byte that no token spells becomes; None drops it."""
    sentence_piece: bytes | None = field(default=None, repr=False)
    """SentencePiece only: the model file's bytes."""
    special_tokens: Mapping[str, int] = field(default_factory=dict)
    """Control tokens by text; they are seen in a text only with `parse_special=True`."""
    user_tokens: Mapping[str, int] = field(default_factory=dict)
    """Tokens outside the merges that are ordinary text, seen in every text."""
    bos_id: int | None = None
    eos_id: int | None = None
    pad_id: int | None = None
    unk_id: int | None = None
    end_ids: tuple[int, ...] = ()
    """Ids that end a generation."""
    add_bos: bool = False
    """Texts start with `bos_id` unless the call says otherwise."""
    add_eos: bool = False
    """Texts end with `eos_id`."""
    chat_template: str | None = None
    """Jinja template of a conversation."""

    def __post_init__(self) -> None:
        if not self.tokens:
            raise InputError("The tokenizer has an empty vocabulary.")
        self._check_ids()
        _CHECKS[self.kind](self) if self.kind in _CHECKS else _unknown_kind(self.kind)

    def _check_ids(self) -> None:
        named = {name: getattr(self, name) for name in ("bos_id", "eos_id", "pad_id", "unk_id")}
        named |= {f"special token {text!r}": id_ for text, id_ in self.special_tokens.items()}
        named |= {f"token {text!r}": id_ for text, id_ in self.user_tokens.items()}
        named |= {f"end_ids[{index}]": id_ for index, id_ in enumerate(self.end_ids)}
        named["missing_byte_id"] = self.missing_byte_id
        for name, id_ in named.items():
            if id_ is not None and not 0 <= id_ < len(self.tokens):
                raise InputError(
                    f"The tokenizer's {name} has id {id_}; the vocabulary has ids 0 to "
                    f"{len(self.tokens) - 1}."
                )
        if "" in self.special_tokens or "" in self.user_tokens:
            raise InputError("The tokenizer has a special token without text.")
        if self.add_bos and self.bos_id is None or self.add_eos and self.eos_id is None:
            raise InputError(
                "The tokenizer adds a begin- or end-of-text token that it does not name."
            )

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> TokenizerSpec:
        """Gives the tokenizer that a GGUF file's metadata describes.

        Args:
            metadata: the file's key-value pairs as Python values.

        Raises:
            InputError: a key is missing or asks for something unknown; the message names it.
        """
        from llama_keras.text.spec_gguf import spec_from_gguf

        return spec_from_gguf(metadata)

    @classmethod
    def from_hugging_face(cls, directory: str | Path) -> TokenizerSpec:
        """Gives the tokenizer of a Hugging Face model directory.

        Args:
            directory: holds tokenizer.json (byte-level BPE) or tokenizer.model (SentencePiece)
                and, optionally, tokenizer_config.json, generation_config.json,
                chat_template.jinja.

        Raises:
            InputError: a file is missing, broken, or asks for something unknown.
        """
        from llama_keras.text.spec_hugging_face import spec_from_hugging_face

        return spec_from_hugging_face(Path(directory))

    @classmethod
    def tiny(cls) -> TokenizerSpec:
        """Gives a tokenizer of the 256 bytes and three special tokens, for tests and demos."""
        special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
        tokens = (*special, *(BYTE_TO_CHAR[byte] for byte in range(256)))
        return cls(
            kind="byte_pair",
            tokens=tokens,
            pre_tokenizer="gpt2",
            special_tokens={text: index for index, text in enumerate(special)},
            bos_id=1,
            eos_id=2,
            pad_id=0,
            end_ids=(2, 0),
            chat_template=CHATML,
        )

    def to_json(self) -> str:
        """Gives the record as JSON text."""
        record: dict[str, Any] = {"format": FORMAT, "version": VERSION}
        record |= {item.name: getattr(self, item.name) for item in fields(self)}
        record["merges"] = [f"{left} {right}" for left, right in self.merges]
        record["special_tokens"] = dict(self.special_tokens)
        record["user_tokens"] = dict(self.user_tokens)
        if self.sentence_piece is not None:
            record["sentence_piece"] = base64.b64encode(self.sentence_piece).decode()
        return json.dumps(record, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, *, name: str = "the tokenizer file") -> TokenizerSpec:
        """Gives the record that `to_json` wrote.

        Args:
            text: the JSON text.
            name: what to call it in errors.

        Raises:
            InputError: not such a text, of another version, or inconsistent.
        """
        try:
            record = json.loads(text)
        except ValueError as error:
            raise InputError(f"{name} is not JSON: {error}.") from error
        if not isinstance(record, dict) or record.pop("format", None) != FORMAT:
            raise InputError(f"{name} is not a tokenizer saved by llama-keras.")
        if (version := record.pop("version", None)) != VERSION:
            raise InputError(f"{name} has version {version}; this package reads {VERSION}.")
        if unknown := record.keys() - {item.name for item in fields(cls)}:
            raise InputError(f"{name} has unknown fields: {', '.join(sorted(unknown))}.")
        try:
            record["tokens"] = tuple(str(token) for token in record["tokens"])
            record["merges"] = tuple(split_merge(merge) for merge in record["merges"])
            record["end_ids"] = tuple(record["end_ids"])
            if record["sentence_piece"] is not None:
                record["sentence_piece"] = base64.b64decode(record["sentence_piece"], validate=True)
            return cls(**record)
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{name} is damaged: {type(error).__name__} {error}.") from error


CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' "
    "+ message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def split_merge(merge: Any) -> tuple[str, str]:
    """Gives the two tokens of a merge that is written as "left right" or as a pair.

    Raises:
        InputError: `merge` is neither.
    """
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if (
        not isinstance(parts, list | tuple)
        or len(parts) != 2
        or not all(isinstance(part, str) and part for part in parts)
    ):
        raise InputError(f"Merge {merge!r} is not two tokens.")
    return parts[0], parts[1]


def end_ids(special_tokens: Mapping[str, int], *extra: int | None) -> tuple[int, ...]:
    """Gives the ids that end a generation: `extra` first, then the known end tokens.

    Args:
        special_tokens: the vocabulary's control tokens by text.
        *extra: ids that the model names itself; None is skipped.
    """
    found = [id_ for id_ in extra if id_ is not None]
    found += [special_tokens[text] for text in END_TOKENS if text in special_tokens]
    return tuple(dict.fromkeys(found))


def _check_byte_pair(spec: TokenizerSpec) -> None:
    pre_tokenizer(spec.pre_tokenizer)
    vocabulary = set(spec.tokens)
    if len(vocabulary) != len(spec.tokens):
        seen: set[str] = set()
        twice = next(token for token in spec.tokens if token in seen or seen.add(token))
        raise InputError(f"Token {twice!r} is in the vocabulary twice.")
    for left, right in spec.merges:
        if left + right not in vocabulary:
            raise InputError(
                f"Merge '{left} {right}' makes {left + right!r}, which is not in the vocabulary."
            )


def _check_sentence_piece(spec: TokenizerSpec) -> None:
    if spec.sentence_piece is None:
        raise InputError("A SentencePiece tokenizer needs the bytes of its model file.")
    pieces = read_model(spec.sentence_piece).pieces
    for index, piece in enumerate(pieces):
        if piece.kind == BYTE and not re.fullmatch("<0x[0-9A-Fa-f]{2}>", piece.text):
            raise InputError(f"Byte piece {index} of the SentencePiece model is {piece.text!r}.")
        if index >= len(spec.tokens) or spec.tokens[index] != piece.text:
            raise InputError(
                f"Piece {index} of the SentencePiece model is {piece.text!r}, which the "
                "vocabulary does not have at this id."
            )


def _unknown_kind(kind: str) -> None:
    raise InputError(f"Unknown kind of tokenizer {kind!r}. Known: {', '.join(_CHECKS)}.")


_CHECKS = {"byte_pair": _check_byte_pair, "sentence_piece": _check_sentence_piece}
