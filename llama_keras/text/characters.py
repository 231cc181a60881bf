"""What a character is for words: a letter of a word, a word of its own, or a blank.

Kept as ranges of code points, so that a graph can look classes up without a large table.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import numpy as np

# LETTER goes on with the word of a letter before it, MARK with whatever stands before it.
BLANK, LETTER, MARK, SINGLE = range(4)
# Scripts written without spaces: each of their letters counts as a word.
NO_SPACES = (
    "BOPOMOFO", "CJK", "HALFWIDTH KATAKANA", "HIRAGANA", "IDEOGRAPHIC", "KANGXI", "KATAKANA",
    "KHMER", "LAO", "MYANMAR", "TANGUT", "THAI", "TIBETAN", "YI",
)  # fmt: skip
_LIMIT = 0x110000


def character_class(character: str) -> int:
    """Gives `BLANK`, `LETTER`, `MARK` (accents, joiners, other zero-width ones) or `SINGLE`."""
    category = unicodedata.category(character)
    if category[0] == "Z" or category == "Cc":
        return BLANK
    if category[0] == "M" or category == "Cf":
        return MARK
    if category[0] in "LN":
        return SINGLE if needs_no_spaces(character) else LETTER
    return SINGLE


def needs_no_spaces(character: str) -> bool:
    """Says whether a character is of a script that is written without spaces."""
    return unicodedata.name(character, "").startswith(NO_SPACES)


@lru_cache(maxsize=1)
def character_ranges() -> tuple[np.ndarray, np.ndarray]:
    """Gives the code points at which a new class begins, and the class from there on, int32."""
    # Past the second plane there are ideographs alone, up to the tags and selectors.
    classes = np.fromiter((character_class(chr(code)) for code in range(_LIMIT)), "int32", _LIMIT)
    starts = np.flatnonzero(np.diff(classes, prepend=-1))
    return starts.astype("int32"), classes[starts]
