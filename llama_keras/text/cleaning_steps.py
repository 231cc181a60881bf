"""The steps that clean raw text, one frozen object each, as TensorFlow ops on string tensors.

Every pattern is RE2's and is searched in one pass, so that a text of a million characters costs
milliseconds whatever is in it. TensorFlow is imported by the first call: recipes check their steps
without it.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from llama_keras.errors import InputError

FORMS = ("NFC", "NFD", "NFKC", "NFKD")
# Insides of RE2 classes. `\s` would be ASCII only.
_WHITE_SPACE = r"\t-\r \x{85}\p{Z}"
_ASCII_SYMBOLS = "$+<=>^`|~"  # those that Unicode does not count as punctuation
# All but the variation selectors and the keycap that emoji leave behind.
_NOT_OF_EMOJI = r"\x{0}-\x{20e2}\x{20e4}-\x{fdff}\x{fe10}-\x{e00ff}\x{e01f0}-\x{10ffff}"


class Step(ABC):
    """One change to a text; it never sees invalid UTF-8."""

    name: ClassVar[str]

    @property
    def keeps_characters(self) -> bool:
        """Whether character n of the result always stands for character n of the text."""
        return False

    @abstractmethod
    def __call__(self, texts: Any) -> Any:
        """Gives a string tensor of the same shape."""


@dataclass(frozen=True, kw_only=True)
class Normalize(Step):
    """Gives texts one spelling where Unicode has several (UAX #15, TF-Text's `NormalizeUTF8`).

    After each 30 combining marks in a row comes U+034F, as the Stream-Safe Text Format has it: to
    sort longer runs takes time that grows with their square.

    Attributes:
        form: "NFC" composes é, "NFD" takes it apart; "NFKC" and "NFKD" also make ﬁ, ２ and ① plain.
    """

    name: ClassVar[str] = "normalize"
    form: str = "NFC"

    def __post_init__(self) -> None:
        check_choice(self.form, among=FORMS, what="normalize: form")

    def __call__(self, texts: Any) -> Any:
        """Gives the texts in the form asked for."""
        import tensorflow_text as tf_text

        texts = replace(texts, r"\p{M}{30}", "\\0\u034f")
        return tf_text.normalize_utf8(texts, self.form)


@dataclass(frozen=True, kw_only=True)
class Lower(Step):
    """Gives lower case, one character for each (Unicode's simple mapping: Σ is σ, İ is i).

    TensorFlow's own op for UTF-8 ends a text at a NUL and follows the machine's locale.
    """

    name: ClassVar[str] = "lower"

    @property
    def keeps_characters(self) -> bool:
        """Whether character n of the result always stands for character n of the text."""
        return True

    def __call__(self, texts: Any) -> Any:
        """Gives the texts in lower case."""
        import tensorflow as tf

        texts = tf.strings.lower(texts)  # A to Z
        is_ascii = tf.reduce_all(tf.strings.regex_full_match(texts, r"[\x00-\x7f]*"))
        return tf.cond(is_ascii, lambda: texts, lambda: _lower_all(texts))


@cache
def _lower_case() -> tuple[list[int], list[int]]:
    """Gives the code points beyond ASCII that have a lower case, rising, and that."""
    pairs = {code: chr(code).lower() for code in range(0x80, 0x20000)}
    pairs = {code: ord(low) for code, low in pairs.items() if len(low) == 1 and ord(low) != code}
    pairs[0x130] = ord("i")  # Python gives the two characters of the full mapping
    upper = sorted(pairs)
    return upper, [pairs[code] for code in upper]


def _lower_all(texts: Any) -> Any:
    import tensorflow as tf

    upper, lower = (tf.constant(codes, tf.int32) for codes in _lower_case())
    decoded = tf.strings.unicode_decode(tf.reshape(texts, [-1]), "UTF-8")
    codes = decoded.flat_values
    at = tf.minimum(tf.searchsorted(upper, codes), tf.size(upper) - 1)
    found = tf.where(tf.gather(upper, at) == codes, tf.gather(lower, at), codes)
    encoded = tf.strings.unicode_encode(decoded.with_flat_values(found), "UTF-8")
    return tf.ensure_shape(tf.reshape(encoded, tf.shape(texts)), texts.shape)


@dataclass(frozen=True, kw_only=True)
class StripHtml(Step):
    """Takes HTML tags, comments, scripts and style sheets out, then gives &lt; &amp; … as < & ….

    Attributes:
        replacement: what stands in place of each.
    """

    name: ClassVar[str] = "strip_html"
    replacement: str = " "

    def __post_init__(self) -> None:
        check_text(self.replacement, what="strip_html: replacement")

    def __call__(self, texts: Any) -> Any:
        """Gives the texts without HTML."""
        for pattern in _HTML:
            texts = replace(texts, pattern, literal(self.replacement))
        for entity, char in _ENTITIES:
            texts = replace(texts, entity, char)
        return texts


# One search each: were they alternatives of one, an unclosed comment would be read to the end of
# the text again for every tag in it.
_HTML = (
    r"(?s)<!--.*?-->",
    r"(?is)<(?:script|style)\b.*?</(?:script|style)\s*>",
    r"</?[A-Za-z][^<>]*>|<![A-Za-z][^<>]*>",
)
# & comes last: &amp;lt; stands for &lt;
_ENTITIES = (
    ("&lt;", "<"),
    ("&gt;", ">"),
    ("&quot;", '"'),
    ("&(?:apos|#39|#x27);", "'"),
    ("&nbsp;", "\u00a0"),
    ("&amp;", "&"),
)


@dataclass(frozen=True, kw_only=True)
class RemoveUrls(Step):
    """Takes out http, https and ftp addresses and those that begin with `www.`.

    An address is ASCII, so Chinese text may follow without a space; a full stop, comma or bracket
    at its end belongs to the sentence.

    Attributes:
        replacement: what stands in place of each.
    """

    name: ClassVar[str] = "remove_urls"
    replacement: str = " "

    def __post_init__(self) -> None:
        check_text(self.replacement, what="remove_urls: replacement")

    def __call__(self, texts: Any) -> Any:
        """Gives the texts without addresses."""
        middle, end = r"[\w.~:/?#\[\]@!$&'()*+,;=%-]*", r"[\w~/#@$&*+=%-]"
        pattern = rf"(?i)\b(?:(?:https?|ftp)://|www\.){middle}{end}"
        return replace(texts, pattern, literal(self.replacement))


@dataclass(frozen=True, kw_only=True)
class _RemoveCharacters(Step):
    """A step that replaces single characters."""

    replacement: str = ""
    keep: str = ""

    def __post_init__(self) -> None:
        check_text(self.replacement, what=f"{self.name}: replacement")
        check_text(self.keep, what=f"{self.name}: keep")

    @property
    def keeps_characters(self) -> bool:
        """Whether character n of the result always stands for character n of the text."""
        return len(self.replacement) == 1

    def __call__(self, texts: Any) -> Any:
        """Gives the texts without these characters."""
        return replace(texts, self._pattern(), literal(self.replacement))

    @abstractmethod
    def _pattern(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class RemovePunctuation(_RemoveCharacters):
    """Takes out punctuation of all scripts (Unicode's categories P*) and ASCII's $+<=>^`|~.

    Attributes:
        replacement: what stands in place of each character; the default keeps words apart and
            characters in their places.
        keep: characters to leave, such as "'-".
    """

    name: ClassVar[str] = "remove_punctuation"
    replacement: str = " "

    def _pattern(self) -> str:
        symbols = "".join(char for char in _ASCII_SYMBOLS if char not in self.keep)
        # [^\P{P}…] is punctuation without …
        return rf"[^\P{{P}}{escape(self.keep)}]" + (f"|[{escape(symbols)}]" if symbols else "")


@dataclass(frozen=True, kw_only=True)
class RemoveSpecialCharacters(_RemoveCharacters):
    """Takes out what is no letter, mark, digit, punctuation, ASCII symbol or white space.

    These are control characters (NUL too; not tab and line ends), zero-width and direction marks,
    emoji and all other symbols beyond ASCII (©, €, →), private and unassigned characters, U+FFFD
    (which invalid UTF-8 becomes), and the variation selectors and keycaps of emoji. Persian and
    the scripts of India spell with two of the zero-width characters: `keep="\\u200c\\u200d"`.

    Attributes:
        replacement: what stands in place of each character.
        keep: characters to leave, such as "€°".
    """

    name: ClassVar[str] = "remove_special_characters"

    def _pattern(self) -> str:
        kept = escape(_ASCII_SYMBOLS + self.keep)
        return (
            rf"[^\p{{L}}\p{{M}}\p{{N}}\p{{P}}{_WHITE_SPACE}{kept}]"
            rf"|[^{_NOT_OF_EMOJI}{escape(self.keep)}]"
        )


@dataclass(frozen=True, kw_only=True)
class CollapseWhitespace(Step):
    """Gives one space for each run of white space, line ends included, and none at the ends."""

    name: ClassVar[str] = "collapse_whitespace"

    def __call__(self, texts: Any) -> Any:
        """Gives the texts with single spaces."""
        return replace(replace(texts, f"[{_WHITE_SPACE}]+", " "), "^ | $", "")


def replace(texts: Any, pattern: str, rewrite: str) -> Any:
    """Gives `texts` with each match of an RE2 pattern rewritten (`\\0` is the match)."""
    import tensorflow as tf

    return tf.strings.regex_replace(texts, pattern, rewrite)


def literal(text: str) -> str:
    """Gives the RE2 rewrite that stands for `text` itself."""
    return text.replace("\\", "\\\\")


def escape(text: str) -> str:
    """Gives `text` as RE2 reads it, in a class too; `re.escape` writes escapes unknown to RE2."""
    return re.sub(r"\W", lambda match: f"\\x{{{ord(match.group()):x}}}", text)


def check_text(value: Any, *, what: str) -> None:
    """Raises InputError if a setting is no text that UTF-8 can hold."""
    if not isinstance(value, str) or any(0xD800 <= ord(char) < 0xE000 for char in value):
        raise InputError(f"{what} must be text; received {value!r}.")


def check_choice(value: Any, *, among: Collection[str], what: str) -> None:
    """Raises InputError if a setting is none of those that there are."""
    if value not in list(among):
        raise InputError(f"{what} must be one of {list(among)}; received {value!r}.")
