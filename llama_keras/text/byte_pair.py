"""Byte-level byte-pair encoding inside the TensorFlow graph, exactly as Hugging Face computes it.

TF-Text has no op for byte pairs, but its SentencePiece op merges by score: a model is written here
whose pieces are the vocabulary and whose scores are the merge ranks. Bytes become characters by
reading them as Latin-1. Words are cut by two RE2 replacements (see `pre_tokenizers`) and each
distinct word of a batch is encoded once.

A byte that no token spells gets an extra id, so that it separates its neighbours, and is dropped
afterwards (llama.cpp does the same; Hugging Face drops it before merging, which joins them).

B texts, M segments between special tokens, W words, U distinct words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import tensorflow as tf

from llama_keras.text import sentence_piece_proto as sp
from llama_keras.text.byte_alphabet import to_bytes
from llama_keras.text.graph import (
    Detokenizer,
    Frame,
    Ids,
    OutsideTokens,
    ragged,
    running_sum,
    string_table,
    valid_utf8,
)
from llama_keras.text.lasting_model import sentence_piece_op
from llama_keras.text.pre_tokenizers import SEPARATOR, pre_tokenizer
from llama_keras.text.spec import TokenizerSpec
from llama_keras.text.token_bytes import TokenBytes

# Six bytes that UTF-8 never uses: the digits of an id that stands for a token in a text.
_FIRST_DIGIT, _BASE, _PLACES = 0xF8, 6, 8


class _Words(NamedTuple):
    distinct: tf.Tensor  # (U,) strings
    inverse: tf.Tensor  # (W,) which distinct word
    row_splits: tf.Tensor  # (B + 1,) words of each text


class BytePairGraph(tf.Module):
    """Byte-level BPE as TensorFlow ops and tables; without Keras objects, so it can be exported.

    Args:
        spec: a tokenizer of kind "byte_pair".
    """

    def __init__(self, spec: TokenizerSpec) -> None:
        super().__init__()
        self.frame = Frame(spec)
        self.missing_byte_id = spec.missing_byte_id
        self.size = len(spec.tokens)
        self.pre = pre_tokenizer(spec.pre_tokenizer)
        token_bytes = TokenBytes(spec)
        outside = {**spec.special_tokens, **spec.user_tokens}
        outside_ids = set(outside.values())
        inside = {
            text: id_
            for id_, text in enumerate(token_bytes.texts)
            if id_ not in outside_ids and to_bytes(spec.tokens[id_]) is not None
        }
        pieces = _pieces(spec, inside)
        self.model = _model(pieces)
        self.some_bytes_missing = len(pieces) > self.size + 1
        lengths = [len(text) for text in token_bytes.texts] + [1] * (len(pieces) - self.size)
        self.lengths = tf.constant(lengths, tf.int32)
        self.user = OutsideTokens(_spell_all(spec.user_tokens), default=b"")
        self.special = OutsideTokens(_spell_all(outside), default=b"")
        # Most words of a text are one token: a look-up is faster than merging.
        whole = inside if spec.ignore_merges else _merged_to_one(self.model, inside)
        spelled = {_spell(id_): id_ for id_ in outside_ids}
        self.whole_words = string_table({**whole, **spelled}, default=-1)
        self.texts = Detokenizer(token_bytes)

    def tokenize(
        self,
        texts: tf.Tensor,
        *,
        parse_special: bool = False,
        add_bos: bool | None = None,
        add_eos: bool | None = None,
    ) -> tf.RaggedTensor:
        """Gives the ids of `texts`.

        Args:
            texts: (B,) strings in UTF-8; invalid bytes count as U+FFFD.
            parse_special: see special tokens in the texts; otherwise they are plain text.
            add_bos: start with the begin-of-text id; None follows the tokenizer's own rule.
            add_eos: end with the end-of-text id; None follows the tokenizer's own rule.

        Returns:
            Ragged (B, None) int32.
        """
        words = self._words(valid_utf8(texts), parse_special)
        (pieces,) = self._settled(self._pieces(words.distinct))
        ids = _gather_words(pieces, words)
        return self.frame.ids(ids, add_bos=add_bos, add_eos=add_eos)

    def tokenize_with_offsets(
        self,
        texts: tf.Tensor,
        *,
        parse_special: bool = False,
        add_bos: bool | None = None,
        add_eos: bool | None = None,
    ) -> Ids:
        """Gives the ids of `texts` and the bytes that each covers.

        Args:
            texts: (B,) strings in UTF-8; the offsets count bytes after invalid ones have become
                U+FFFD.
            parse_special: see special tokens in the texts; otherwise they are plain text.
            add_bos: start with the begin-of-text id; None follows the tokenizer's own rule.
            add_eos: end with the end-of-text id; None follows the tokenizer's own rule.

        Returns:
            (ids, starts, ends), each ragged (B, None) int32.
        """
        words = self._words(valid_utf8(texts), parse_special)
        pieces = self._pieces(words.distinct)
        lengths = pieces.with_values(tf.gather(self.lengths, pieces.values))
        ends = running_sum(lengths)
        starts = ends.with_values(ends.values - lengths.values)
        word_bytes = ragged(
            tf.gather(tf.reduce_sum(lengths, axis=1), words.inverse), words.row_splits
        )
        kept = self._settled(pieces, starts, ends)
        counts = tf.gather(kept[0].row_lengths(), words.inverse)
        word_starts = tf.repeat(running_sum(word_bytes).values - word_bytes.values, counts)
        ids, starts, ends = (_gather_words(part, words) for part in kept)
        found = Ids(
            ids,
            starts.with_values(starts.values + word_starts),
            ends.with_values(ends.values + word_starts),
        )
        text_bytes = tf.reduce_sum(word_bytes, axis=1)
        return self.frame.all(found, text_bytes=text_bytes, add_bos=add_bos, add_eos=add_eos)

    def cut(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Gives the words of `texts` (B,), valid UTF-8, ragged (B, None); some words are empty."""
        texts = tf.strings.regex_replace(texts, self.pre.space_run, rb"\1" + SEPARATOR + rb"\2")
        texts = tf.strings.regex_replace(texts, self.pre.word, SEPARATOR + rb"\0")
        return tf.strings.split(texts, SEPARATOR)

    def detokenize(self, ids: tf.RaggedTensor, *, skip_special_tokens: bool = False) -> tf.Tensor:
        """Gives the texts (B,) of ragged `ids` (B, None); bytes that are no UTF-8 are U+FFFD."""
        return self.texts.detokenize(ids, skip_special_tokens=skip_special_tokens)

    def _words(self, texts: tf.Tensor, parse_special: bool) -> _Words:
        tokens = self.special if parse_special else self.user
        if tokens.table is None:
            words = self.cut(texts)
            distinct, inverse = tf.unique(words.values)
            return _Words(distinct, inverse, words.row_splits)
        segments, spelling = tokens.split(texts)
        words = self.cut(tf.where(spelling == "", segments.values, spelling))
        distinct, inverse = tf.unique(words.values)
        return _Words(distinct, inverse, tf.gather(words.row_splits, segments.row_splits))

    def _pieces(self, words: tf.Tensor) -> tf.RaggedTensor:
        """Gives the ids (U, None) of words, ids past the vocabulary for bytes that it lacks."""
        ids = self.whole_words.lookup(words)
        is_whole = ids >= 0
        whole = tf.ragged.boolean_mask(ids[:, tf.newaxis], is_whole[:, tf.newaxis])
        others = tf.where(is_whole, "", words)
        merged = self.model.tokenize(tf.strings.unicode_transcode(others, "ISO-8859-1", "UTF-8"))
        return cast(tf.RaggedTensor, tf.concat([whole, merged], axis=1))

    def _settled(self, pieces: tf.RaggedTensor, *parts: tf.RaggedTensor) -> list[tf.RaggedTensor]:
        """Gives ids without extra ones, and of `parts` (same shape) what belongs to them."""
        if not self.some_bytes_missing:
            return [pieces, *parts]
        missing = pieces.values >= self.size
        if self.missing_byte_id is not None:
            ids = tf.where(missing, self.missing_byte_id, pieces.values)
            return [pieces.with_values(ids), *parts]
        keep = pieces.with_values(~missing)
        return [tf.ragged.boolean_mask(part, keep) for part in (pieces, *parts)]


def _spell(id_: int) -> bytes:
    return bytes(_FIRST_DIGIT + id_ // _BASE**place % _BASE for place in range(_PLACES))


def _spell_all(ids: Mapping[Any, int]) -> dict[Any, bytes]:
    return {text: _spell(id_) for text, id_ in ids.items()}


def _pieces(spec: TokenizerSpec, inside: Mapping[bytes, int]) -> list[sp.Piece]:
    """Gives the SentencePiece vocabulary: tokens, the bytes that none spells, the unknown piece.

    Args:
        spec: the tokenizer.
        inside: the ids of the tokens that words are made of, by their bytes.
    """
    rank: dict[str, int] = {}
    for index, (left, right) in enumerate(spec.merges):
        rank.setdefault(left + right, index)
    # A token that no merge makes must not be a piece: the op would merge whatever spells it.
    pieces = [sp.Piece(f"\u2603{id_}", 0.0, sp.CONTROL) for id_ in range(len(spec.tokens))]
    for text, id_ in inside.items():
        token = spec.tokens[id_]
        if len(text) == 1 or token in rank:
            score = -float(rank.get(token, 0))
            pieces[id_] = sp.Piece(text.decode("latin-1"), score, sp.NORMAL)
    missing = [chr(byte) for byte in range(256) if bytes([byte]) not in inside]
    pieces += [sp.Piece(char, 0.0, sp.NORMAL) for char in missing]
    return [*pieces, sp.Piece("\u2603", 0.0, sp.UNKNOWN)]


def _model(pieces: Sequence[sp.Piece]) -> Any:
    proto = sp.write_model(
        pieces, add_dummy_prefix=False, escape_whitespaces=False, unk_id=len(pieces) - 1
    )
    return sentence_piece_op(proto)


def _merged_to_one(model: Any, inside: Mapping[bytes, int]) -> dict[bytes, int]:
    """Gives the tokens that merging their own bytes gives."""
    with tf.init_scope():
        found = model.tokenize([text.decode("latin-1") for text in inside]).to_list()
    rows = zip(inside.items(), found, strict=True)
    return {text: id_ for (text, id_), ids in rows if ids == [id_]}


def _gather_words(pieces: tf.RaggedTensor, words: _Words) -> tf.RaggedTensor:
    """Gives for each text what `pieces` (U, None) has for its words, in order, (B, None)."""
    by_word = tf.gather(pieces, words.inverse)
    return ragged(by_word.values, tf.gather(by_word.row_splits, words.row_splits))
