"""The bytes behind each id, and texts out of ids in plain Python."""

from __future__ import annotations

from collections.abc import Iterable

from llama_keras.errors import InputError
from llama_keras.text import sentence_piece_proto as sp
from llama_keras.text.byte_alphabet import to_bytes
from llama_keras.text.spec import TokenizerSpec

REPLACEMENT = "\ufffd".encode()


class TokenBytes:
    """What each id of a vocabulary stands for.

    Args:
        spec: the tokenizer.
    """

    def __init__(self, spec: TokenizerSpec) -> None:
        self.special_ids = frozenset(spec.special_tokens.values())
        self.strip_space = False
        texts = _TEXTS[spec.kind](spec)
        for text, id_ in {**spec.special_tokens, **spec.user_tokens}.items():
            texts[id_] = text.encode()
        self.texts: list[bytes] = texts
        if spec.sentence_piece is not None:
            # Encoding has put a space before a text, and after each special token.
            self.strip_space = sp.read_model(spec.sentence_piece).add_dummy_prefix

    def is_special(self, token_id: int) -> bool:
        """Says whether `token_id` is a control token."""
        return token_id in self.special_ids

    def text_of(self, token_id: int, *, at_start: bool, skip_special_tokens: bool) -> bytes:
        """Gives the bytes of one id.

        Args:
            token_id: an id; one past the vocabulary (embedding tables are often padded) shows
                as U+FFFD.
            at_start: the id is the first of a text or comes after a special token.
            skip_special_tokens: give nothing for a control token.

        Raises:
            InputError: the id is negative.
        """
        if token_id < 0:
            raise InputError(f"Token id {token_id} is negative; ids start at 0.")
        if skip_special_tokens and token_id in self.special_ids:
            return b""
        text = self.texts[token_id] if token_id < len(self.texts) else REPLACEMENT
        if at_start and self.strip_space and token_id not in self.special_ids:
            return text.removeprefix(b" ")
        return text

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool) -> str:
        """Gives the text of `ids`; bytes that are no UTF-8 show as U+FFFD."""
        parts, at_start = [], True
        for token_id in ids:
            parts.append(
                self.text_of(token_id, at_start=at_start, skip_special_tokens=skip_special_tokens)
            )
            at_start = token_id in self.special_ids
        return b"".join(parts).decode("utf-8", errors="replace")


def _byte_pair(spec: TokenizerSpec) -> list[bytes]:
    return [to_bytes(token) or token.encode() for token in spec.tokens]


def _sentence_piece(spec: TokenizerSpec) -> list[bytes]:
    model = sp.read_model(spec.sentence_piece or b"")
    texts = [token.encode() for token in spec.tokens]
    for id_, piece in enumerate(model.pieces):
        if piece.kind == sp.BYTE:
            texts[id_] = bytes([int(piece.text[3:5], 16)])
        elif piece.kind == sp.UNKNOWN:
            texts[id_] = model.unk_surface.encode()
        else:
            texts[id_] = piece.text.replace(sp.SPACE, " ").encode()
    return texts


_TEXTS = {"byte_pair": _byte_pair, "sentence_piece": _sentence_piece}
