"""SentencePiece models (Llama 1 and 2) inside the TensorFlow graph.

The op does what the sentencepiece package does, but for special tokens in a text, at which the text
is cut here first. Each piece of text between them is encoded by itself, with the space that the
model puts before a text, as llama.cpp does.

B texts, M segments between special tokens.
"""

from __future__ import annotations

import tensorflow as tf

from llama_keras.text.graph import (
    Detokenizer,
    Frame,
    Ids,
    OutsideTokens,
    ragged,
    running_sum,
    valid_utf8,
)
from llama_keras.text.lasting_model import sentence_piece_op
from llama_keras.text.spec import TokenizerSpec
from llama_keras.text.token_bytes import TokenBytes


class SentencePieceGraph(tf.Module):
    """A SentencePiece model as TensorFlow ops; without Keras objects, so it can be exported.

    Args:
        spec: a tokenizer of kind "sentence_piece".
    """

    def __init__(self, spec: TokenizerSpec) -> None:
        super().__init__()
        self.frame = Frame(spec)
        self.user = OutsideTokens(spec.user_tokens, default=-1)
        self.special = OutsideTokens({**spec.special_tokens, **spec.user_tokens}, default=-1)
        self.model = sentence_piece_op(spec.sentence_piece or b"")
        self.texts = Detokenizer(TokenBytes(spec))

    def tokenize(
        self,
        texts: tf.Tensor,
        *,
        parse_special: bool = False,
        add_bos: bool | None = None,
        add_eos: bool | None = None,
    ) -> tf.RaggedTensor:
        """Gives the ids of `texts`; see `BytePairGraph.tokenize`."""
        return self.tokenize_with_offsets(
            texts, parse_special=parse_special, add_bos=add_bos, add_eos=add_eos
        ).ids

    def tokenize_with_offsets(
        self,
        texts: tf.Tensor,
        *,
        parse_special: bool = False,
        add_bos: bool | None = None,
        add_eos: bool | None = None,
    ) -> Ids:
        """Gives the ids of `texts` and the bytes that each covers.

        Of a character that is spelled byte by byte the last id has the span, the ones before it
        have no width. See `BytePairGraph.tokenize_with_offsets` for arguments and result.
        """
        texts = valid_utf8(texts)
        tokens = self.special if parse_special else self.user
        found = self._plain(texts) if tokens.table is None else self._parse(texts, tokens)
        text_bytes = tf.strings.length(texts)
        return self.frame.all(found, text_bytes=text_bytes, add_bos=add_bos, add_eos=add_eos)

    def detokenize(self, ids: tf.RaggedTensor, *, skip_special_tokens: bool = False) -> tf.Tensor:
        """Gives the texts (B,) of ragged `ids` (B, None); bytes that are no UTF-8 are U+FFFD."""
        return self.texts.detokenize(ids, skip_special_tokens=skip_special_tokens)

    def _plain(self, texts: tf.Tensor) -> Ids:
        ids, starts, ends = self.model.tokenize_with_offsets(texts)
        return Ids(
            ids,
            starts.with_values(tf.cast(starts.values, tf.int32)),
            ends.with_values(tf.cast(ends.values, tf.int32)),
        )

    def _parse(self, texts: tf.Tensor, tokens: OutsideTokens) -> Ids:
        segments, special_ids = tokens.split(texts)
        is_special = special_ids >= 0
        plain = self._plain(tf.where(is_special, "", segments.values))
        sizes = tf.strings.length(segments.values)
        begins = running_sum(ragged(sizes, segments.row_splits)).values - sizes
        # A segment is either one special token or plain text, so one of the two parts is empty.
        columns = (special_ids, tf.zeros_like(sizes), sizes)
        parts = []
        shifts = (tf.zeros_like(sizes), begins, begins)
        for shift, column, part in zip(shifts, columns, plain, strict=True):
            single = tf.ragged.boolean_mask(column[:, tf.newaxis], is_special[:, tf.newaxis])
            joined = tf.concat([single, part], axis=1)
            moved = joined.values + tf.repeat(shift, joined.row_lengths())
            parts.append(ragged(moved, tf.gather(joined.row_splits, segments.row_splits)))
        return Ids(*parts)
