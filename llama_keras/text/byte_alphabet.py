"""GPT-2's printable alphabet for the 256 bytes, in which byte-level vocabularies are written."""

from __future__ import annotations


def _byte_to_char() -> dict[int, str]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {byte: chr(byte) for byte in printable}
    others = [byte for byte in range(256) if byte not in table]
    table.update({byte: chr(256 + index) for index, byte in enumerate(others)})
    return table


BYTE_TO_CHAR: dict[int, str] = _byte_to_char()
CHAR_TO_BYTE: dict[str, int] = {char: byte for byte, char in BYTE_TO_CHAR.items()}


def to_bytes(token: str) -> bytes | None:
    """Gives the bytes that `token` stands for, or None when a character is outside the alphabet."""
    try:
        return bytes([CHAR_TO_BYTE[char] for char in token])
    except KeyError:
        return None


def from_bytes(data: bytes) -> str:
    """Gives the spelling of `data` in the alphabet, one character a byte."""
    return "".join([BYTE_TO_CHAR[byte] for byte in data])
