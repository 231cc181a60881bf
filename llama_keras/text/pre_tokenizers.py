r"""The regular expressions that cut text into words before byte pairs are merged.

The reference patterns end in `\s+(?!\S)|\s+`: white space before a word keeps its last character
for the word. RE2 has no look-ahead, so each pattern is written as two replacements that only insert
the byte 0xFF, which valid UTF-8 never holds and no pattern can match:

1. `space_run` puts a separator before the last white-space character of a run that a word follows;
2. `word` puts a separator before each match.

`word` is used through `\0` only. Then RE2 needs no sub-matches and stays in its DFA: ten times as
fast as one pair of parentheses, or as TF-Text's RegexSplitWithOffsets.
"""

from __future__ import annotations

from dataclasses import dataclass

from llama_keras.errors import InputError

SEPARATOR = b"\xff"

# RE2's \s is ASCII only. This is Unicode's White_Space; H is the same without CR and LF.
_S = r"\t-\r \x{85}\p{Z}"
_H = r"\t\x{b}\x{c} \x{85}\p{Z}"
# Letters and numbers of Unicode 16, which the reference knows and RE2's tables (15) do not.
_NEW_LETTERS = (
    r"\x{1c89}-\x{1c8a}\x{a7cb}-\x{a7cd}\x{a7da}-\x{a7dc}\x{105c0}-\x{105f3}\x{10d4a}-\x{10d65}"
    r"\x{10d6f}-\x{10d85}\x{10ec2}-\x{10ec4}\x{11380}-\x{11389}\x{1138b}\x{1138e}"
    r"\x{11390}-\x{113b5}\x{113b7}\x{113d1}\x{113d3}\x{11bc0}-\x{11be0}\x{13460}-\x{143fa}"
    r"\x{16100}-\x{1611d}\x{16d40}-\x{16d6c}\x{18cff}\x{1e5d0}-\x{1e5ed}\x{1e5f0}"
    r"\x{2ebf0}-\x{2ee5d}"
)
_NEW_NUMBERS = (
    r"\x{10d40}-\x{10d49}\x{116d0}-\x{116e3}\x{11bf0}-\x{11bf9}\x{16130}-\x{16139}"
    r"\x{16d70}-\x{16d79}\x{1ccf0}-\x{1ccf9}\x{1e5f1}-\x{1e5fa}"
)
# The reference's digit splitter follows Unicode 17, its regular expressions Unicode 16.
_NEW_DIGITS = _NEW_NUMBERS + r"\x{11de0}-\x{11de9}\x{16ff4}-\x{16ff6}"
_L = r"\p{L}" + _NEW_LETTERS
_N = r"\p{N}" + _NEW_NUMBERS
_D = r"\p{N}" + _NEW_DIGITS
_CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"


@dataclass(frozen=True, kw_only=True)
class PreTokenizer:
    """One way to cut text into words: the reference's pattern and its two RE2 replacements."""

    reference: str
    """The pattern as published, for Perl-like engines."""
    space_run: str
    """RE2 pattern with two groups; a separator goes between them."""
    word: str
    """RE2 pattern of a word; a separator goes before each match."""


GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    "gpt2": PreTokenizer(
        reference=GPT2_PATTERN,
        space_run=f"([{_S}])([{_S}][^{_S}])",
        word=f"{_CONTRACTIONS}| ?[{_L}]+| ?[{_N}]+| ?[^{_S}{_L}{_N}]+|[{_S}]+",
    ),
    # Digits first, each alone: white space before a digit is a run of its own, kept whole.
    "smollm": PreTokenizer(
        reference=r"\p{N}|" + GPT2_PATTERN,
        space_run=f"([{_S}])([{_S}][^{_S}{_D}])",
        word=f"{_CONTRACTIONS}| ?[{_L}]+|[{_D}]| ?[^{_S}{_L}{_D}]+|[{_S}]+",
    ),
    # A run up to its last line break is one word, so only horizontal space can precede a word.
    "llama3": PreTokenizer(
        reference=LLAMA3_PATTERN,
        space_run=f"([{_H}])([{_H}][^{_S}])",
        word=f"(?i:{_CONTRACTIONS})|[^\\r\\n{_L}{_N}]?[{_L}]+|[{_N}]{{1,3}}|"
        f" ?[^{_S}{_L}{_N}]+[\\r\\n]*|[{_S}]*[\\r\\n]+|[{_S}]+",
    ),
}


def pre_tokenizer(name: str) -> PreTokenizer:
    """Gives the pre-tokenizer called `name`.

    Raises:
        InputError: no such name; the message lists the known ones.
    """
    if name not in PRE_TOKENIZERS:
        known = ", ".join(sorted(PRE_TOKENIZERS))
        raise InputError(f"Unknown pre-tokenizer {name!r}. Known: {known}.")
    return PRE_TOKENIZERS[name]
