"""SentencePiece model files, read and written without the sentencepiece package.

Only the fields that a tokenizer needs are known here; a model that is read is kept as its bytes.
Field numbers: sentencepiece_model.proto (ModelProto, TrainerSpec, NormalizerSpec).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from llama_keras.errors import InputError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
UNIGRAM, BPE = 1, 2
SPACE = "\u2581"

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Piece:
    """One entry of a SentencePiece vocabulary."""

    text: str
    score: float
    kind: int


@dataclass(frozen=True, kw_only=True)
class SentencePieceModel:
    """What a SentencePiece model file says, as far as a tokenizer needs it."""

    pieces: tuple[Piece, ...]
    add_dummy_prefix: bool
    unk_surface: str
    bos_id: int
    eos_id: int
    pad_id: int


def write_model(
    pieces: Iterable[Piece],
    *,
    add_dummy_prefix: bool,
    escape_whitespaces: bool,
    unk_id: int,
    bos_id: int = -1,
    eos_id: int = -1,
    remove_extra_whitespaces: bool = False,
    byte_fallback: bool = False,
) -> bytes:
    """Gives the bytes of a BPE model without any text normalization.

    Args:
        pieces: the vocabulary in id order; of two possible merges the higher score comes first.
        add_dummy_prefix: put a space before the text.
        escape_whitespaces: write spaces as U+2581, as the vocabularies of Llama 1 and 2 do.
        unk_id: id of the piece of kind UNKNOWN.
        bos_id: id of the begin-of-text piece, -1 for none.
        eos_id: id of the end-of-text piece, -1 for none.
        remove_extra_whitespaces: squeeze runs of spaces.
        byte_fallback: spell characters outside the vocabulary with the pieces of kind BYTE.
    """
    chunks, unk_text = [], "<unk>"
    for index, piece in enumerate(pieces):
        chunks.append(
            _bytes_field(
                1,
                _bytes_field(1, piece.text.encode())
                + _varint(2 << 3 | _FIXED32)
                + struct.pack("<f", piece.score)
                + _int_field(3, piece.kind),
            )
        )
        if index == unk_id:
            unk_text = piece.text
    trainer = (
        _int_field(3, BPE)
        + _int_field(35, int(byte_fallback))
        + _int_field(40, unk_id)
        + _int_field(41, bos_id)
        + _int_field(42, eos_id)
        + _int_field(43, -1)
        + _bytes_field(45, unk_text.encode())
    )
    normalizer = (
        _bytes_field(1, b"identity")
        + _int_field(3, int(add_dummy_prefix))
        + _int_field(4, int(remove_extra_whitespaces))
        + _int_field(5, int(escape_whitespaces))
    )
    return b"".join(chunks) + _bytes_field(2, trainer) + _bytes_field(3, normalizer)


def read_model(data: bytes, *, name: str = "the SentencePiece model") -> SentencePieceModel:
    """Gives the vocabulary and settings of a model file.

    Args:
        data: the file's bytes.
        name: what to call the file in errors.

    Raises:
        InputError: the bytes are not a whole SentencePiece model of the BPE or unigram type.
    """
    try:
        pieces, trainer, normalizer = [], {}, {}
        for field, value in _fields(data):
            if field == 1:
                pieces.append(_piece(_as_bytes(value)))
            elif field == 2:
                trainer = dict(_fields(_as_bytes(value)))
            elif field == 3:
                normalizer = dict(_fields(_as_bytes(value)))
        unk_surface = _as_bytes(trainer.get(44, " \u2047 ".encode())).decode()
    except (ValueError, struct.error, IndexError) as error:
        raise InputError(
            f"{name} is not a SentencePiece model file ({error}). Expected the tokenizer.model "
            "that training with sentencepiece writes; is the file truncated?"
        ) from error
    if not (pieces and trainer and normalizer):
        raise InputError(
            f"{name} lacks its pieces or settings: not a SentencePiece model file, or truncated."
        )
    if trainer.get(3, UNIGRAM) not in (UNIGRAM, BPE):
        raise InputError(
            f"{name} has model type {trainer.get(3)}; expected BPE (2) or unigram (1)."
        )
    return SentencePieceModel(
        pieces=tuple(pieces),
        add_dummy_prefix=bool(normalizer.get(3, 1)),
        unk_surface=unk_surface,
        bos_id=_signed(trainer.get(41, 1)),
        eos_id=_signed(trainer.get(42, 2)),
        pad_id=_signed(trainer.get(43, -1)),
    )


def _piece(data: bytes) -> Piece:
    fields = dict(_fields(data))
    score = fields.get(2, b"\0\0\0\0")
    kind = fields.get(3, NORMAL)
    if not isinstance(kind, int) or not NORMAL <= kind <= BYTE:
        raise ValueError(f"piece of unknown kind {kind}")
    return Piece(
        _as_bytes(fields.get(1, b"")).decode(), struct.unpack("<f", _as_bytes(score))[0], kind
    )


def _as_bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number where text was expected")
    return value


def _signed(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise InputError("The SentencePiece model has text where a token id was expected.")
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        field, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _read_varint(data, at)
            yield field, value
            continue
        if wire == _BYTES:
            size, at = _read_varint(data, at)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"unknown wire type {wire} at byte {at}")
        if at + size > len(data):
            raise ValueError(f"a field ends at byte {at + size} of {len(data)}")
        yield field, data[at : at + size]
        at += size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError(f"a number longer than 64 bits at byte {at}")


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _bytes_field(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(data)) + data


def _int_field(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)
