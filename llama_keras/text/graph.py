"""What the graphs of both kinds of tokenizer share: clean text, special tokens, ids back to text.

B texts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import tensorflow as tf

from llama_keras.text.spec import TokenizerSpec
from llama_keras.text.token_bytes import REPLACEMENT, TokenBytes

# Around a special token while a text is being cut; valid UTF-8 never holds this byte.
_MARK = b"\xfe"


class Ids(NamedTuple):
    """Ids of the tokens of B texts and where their bytes are, all ragged (B, None) int32."""

    ids: tf.RaggedTensor
    starts: tf.RaggedTensor
    ends: tf.RaggedTensor


def valid_utf8(texts: tf.Tensor) -> tf.Tensor:
    """Gives `texts` (B,) with invalid bytes as U+FFFD, as Python's `errors="replace"` does."""
    # RE2 matches whole characters only, and this is far faster than the conversion.
    is_valid = tf.reduce_all(tf.strings.regex_full_match(texts, r"[^\x{d800}-\x{dfff}]*"))
    return tf.cond(
        is_valid,
        lambda: texts,
        lambda: tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace"),
    )


def substrings(texts, rows, starts, ends) -> tf.Tensor:
    """Gives parts of texts, string `(P,)`; each text is read once, however many parts it has.

    Args:
        texts: valid UTF-8, `(B,)`.
        rows: of which text each part is, `(P,)`.
        starts, ends: its first character and one past its last, `(P,)`.
    """
    codes = tf.strings.unicode_decode(texts, "UTF-8")
    base = tf.gather(codes.row_splits, rows)
    parts = tf.ragged.range(base + tf.cast(starts, tf.int64), base + tf.cast(ends, tf.int64))
    return tf.strings.unicode_encode(tf.gather(codes.values, parts), "UTF-8")


def string_table(
    values: Mapping[str, Any] | Mapping[bytes, Any], *, default: Any
) -> tf.lookup.StaticHashTable:
    """Gives a lookup table from strings to `values`, `default` for all other strings."""
    keys = [key.encode() if isinstance(key, str) else key for key in values]
    dtype = tf.string if isinstance(default, bytes) else tf.int32
    return tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(
            tf.constant(keys, tf.string), tf.constant(list(values.values()), dtype)
        ),
        default_value=default,
    )


class OutsideTokens(tf.Module):
    """Tokens that are found in a text before it is cut into words.

    Args:
        values: what stands for each token's text.
        default: what stands for any other text.
    """

    def __init__(self, values: Mapping[str, Any], *, default: Any) -> None:
        super().__init__()
        # Of two tokens that start at the same place the longer one counts.
        longest_first = sorted(values, key=len, reverse=True)
        # re.escape would write escapes that RE2 does not know.
        self.pattern = "|".join(re.sub(r"[\x00-\x7f]", _escape, text) for text in longest_first)
        self.table = string_table(values, default=default) if values else None
        self.default = default

    def split(self, texts: tf.Tensor) -> tuple[tf.RaggedTensor, tf.Tensor]:
        """Cuts `texts` (B,), valid UTF-8, before and after each token.

        Returns:
            The segments, ragged (B, None), and what stands for each of them, flat.
        """
        assert self.table is not None, "check `table` first: there are no tokens"
        marked = tf.strings.regex_replace(texts, self.pattern, _MARK + rb"\0" + _MARK)
        segments = tf.strings.split(marked, _MARK)
        return segments, self.table.lookup(segments.values)


def _escape(match: re.Match[str]) -> str:
    char = match.group()
    return char if char.isalnum() else f"\\x{ord(char):02x}"


class Detokenizer(tf.Module):
    """Turns ids back into text.

    Args:
        token_bytes: what each id stands for.
    """

    def __init__(self, token_bytes: TokenBytes) -> None:
        super().__init__()
        self.size = len(token_bytes.texts)
        # An id outside the vocabulary (embedding tables are often padded) shows as U+FFFD.
        self.table = tf.constant([*token_bytes.texts, REPLACEMENT], tf.string)
        self.is_special = tf.constant([token_bytes.is_special(id_) for id_ in range(self.size + 1)])
        self.strip_space = token_bytes.strip_space

    def detokenize(self, ids: tf.RaggedTensor, *, skip_special_tokens: bool = False) -> tf.Tensor:
        """Gives the texts (B,) of ragged `ids` (B, None); bytes that are no UTF-8 are U+FFFD."""
        flat = tf.cast(ids.flat_values, tf.int32)
        flat = tf.where((flat < 0) | (flat > self.size), self.size, flat)
        texts, special = tf.gather(self.table, flat), tf.gather(self.is_special, flat)
        if self.strip_space:
            at_start = tf.concat([[True], special[:-1]], axis=0)[: tf.size(flat)]
            rows = tf.cast(ids.with_flat_values(flat).value_rowids(), tf.int32)
            at_start |= tf.concat([[True], rows[1:] != rows[:-1]], axis=0)[: tf.size(flat)]
            texts = tf.where(at_start, tf.strings.regex_replace(texts, "^ ", ""), texts)
        if skip_special_tokens:
            texts = tf.where(special, tf.zeros_like(texts), texts)
        joined = tf.strings.reduce_join(ids.with_flat_values(texts), axis=-1)
        return tf.strings.unicode_transcode(joined, "UTF-8", "UTF-8", errors="replace")


class Frame:
    """Puts the ids that begin and end a text around its tokens.

    Args:
        spec: the tokenizer, which says which ids these are and whether they are wanted.
    """

    def __init__(self, spec: TokenizerSpec) -> None:
        self._bos = (spec.bos_id, spec.add_bos)
        self._eos = (spec.eos_id, spec.add_eos)

    def ids(
        self, ids: tf.RaggedTensor, *, add_bos: bool | None, add_eos: bool | None
    ) -> tf.RaggedTensor:
        """Gives `ids` (B, None) with the ids of begin and end.

        Args:
            ids: the tokens of B texts.
            add_bos: with the first; None follows the tokenizer's own rule.
            add_eos: with the last; None follows the tokenizer's own rule.
        """
        zeros = tf.zeros_like(ids.row_splits[1:], tf.int32)
        bos, eos = _wanted(*self._bos, add_bos), _wanted(*self._eos, add_eos)
        return _between(
            None if bos is None else zeros + bos, ids, None if eos is None else zeros + eos
        )

    def all(
        self, found: Ids, *, text_bytes: tf.Tensor, add_bos: bool | None, add_eos: bool | None
    ) -> Ids:
        """Gives `found` with the ids of begin and end as spans of no width.

        Args:
            found: the tokens of B texts.
            text_bytes: (B,) int32, bytes in each text.
            add_bos: with the first; None follows the tokenizer's own rule.
            add_eos: with the last; None follows the tokenizer's own rule.
        """
        first = None if _wanted(*self._bos, add_bos) is None else tf.zeros_like(text_bytes)
        last = None if _wanted(*self._eos, add_eos) is None else text_bytes
        return Ids(
            self.ids(found.ids, add_bos=add_bos, add_eos=add_eos),
            _between(first, found.starts, last),
            _between(first, found.ends, last),
        )


def _wanted(token_id: int | None, rule: bool, asked: bool | None) -> int | None:
    return token_id if (rule if asked is None else asked) else None


def _between(
    first: tf.Tensor | None, part: tf.RaggedTensor, last: tf.Tensor | None
) -> tf.RaggedTensor:
    columns = [x[:, tf.newaxis] for x in (first,) if x is not None]
    columns += [part, *(x[:, tf.newaxis] for x in (last,) if x is not None)]
    return part if len(columns) == 1 else cast(tf.RaggedTensor, tf.concat(columns, axis=1))


def running_sum(parts: tf.RaggedTensor) -> tf.RaggedTensor:
    """Gives the running sum of `parts` within each row."""
    total = tf.cumsum(parts.values)
    before = tf.gather(tf.concat([[0], total], axis=0), parts.row_splits[:-1])
    return parts.with_values(total - tf.repeat(before, parts.row_lengths()))


def ragged(values: tf.Tensor, row_splits: tf.Tensor) -> tf.RaggedTensor:
    """Gives a ragged tensor whose parts are known to fit."""
    # TensorFlow's type stubs lack this constructor.
    make = tf.RaggedTensor.from_row_splits  # pyright: ignore[reportAttributeAccessIssue]
    return make(values, row_splits, validate=False)
