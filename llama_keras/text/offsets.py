"""Byte offsets to offsets in characters (Unicode code points), as people and Python count."""

from __future__ import annotations

import re

import numpy as np

_SURROGATE = re.compile("[\ud800-\udfff]")


def clean_text(text: str) -> str:
    """Gives `text` with lone surrogates, which UTF-8 cannot hold, as U+FFFD; lengths stay."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", text)
    return text


def character_offsets(text: str, *, starts: np.ndarray, ends: np.ndarray) -> list[tuple[int, int]]:
    """Gives for each token the characters that it covers, wholly or in part.

    `text[start:end]` holds the token. Tokens that share a character have equal ends there: an emoji
    spelled by four byte tokens gives four times the same span.

    Args:
        text: the text, without lone surrogates.
        starts: (T,) first byte of each token in the text's UTF-8.
        ends: (T,) one past its last byte; a token of no width has `start == end`.
    """
    if text.isascii():
        return list(zip(starts.tolist(), ends.tolist(), strict=True))
    data = np.frombuffer(text.encode(), np.uint8)
    is_first_byte = (data & 0xC0) != 0x80
    # Character of each byte, and one entry for the end of the text.
    character = np.append(np.cumsum(is_first_byte) - 1, len(text))
    first = character[starts]
    last = np.where(ends > starts, character[np.maximum(ends, 1) - 1] + 1, first)
    return list(zip(first.tolist(), last.tolist(), strict=True))
