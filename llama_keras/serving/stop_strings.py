"""Tokens to text inside the graph, cut before the first stop string: what `Completion` does.

Axes: B rows, N new tokens, S stop strings, L characters of the longest text, M of the longest stop.
"""

from typing import NamedTuple

import tensorflow as tf

from llama_keras.text.graph import Detokenizer


class Answers(NamedTuple):
    """What B rows of tokens come to."""

    text: tf.Tensor  # (B,) strings
    counts: tf.Tensor  # int32 (B,), tokens up to and with the one that completed a stop string
    found: tf.Tensor  # bool (B,), whether a stop string is complete


class _Characters(NamedTuple):
    codes: tf.Tensor  # int32 (B, L), -1 after a text's end
    made_by: tf.Tensor  # int32 (B, L), index of the token that makes the character certain


def pieces_of(texts: Detokenizer, tokens, *, before, counts) -> tf.Tensor:
    """Gives the bytes of each token: strings `(B, N)`, empty for control tokens and after the end.

    Args:
        texts: of the tokenizer.
        tokens: int32 `(B, N)`.
        before: int32 `(B,)`, the last token of the prompt: SentencePiece drops the space before a
            text's first word, and these texts have one before them.
        counts: int32 `(B,)`, how many of the tokens belong to the text.
    """
    last = tf.concat([before[:, None], tokens], axis=1)
    known = tf.where((last < 0) | (last > texts.size), texts.size, last)
    special = tf.gather(texts.is_special, known)
    pieces = tf.gather(texts.table, known[:, 1:])
    if texts.strip_space:
        pieces = tf.where(special[:, :-1], tf.strings.regex_replace(pieces, "^ ", ""), pieces)
    shown = tf.sequence_mask(counts, tf.shape(tokens)[1]) & ~special[:, 1:]
    return tf.where(shown, pieces, "")


def answers(pieces, counts, stop, *, at_end: bool) -> Answers:
    """Gives the texts, each cut before the first stop string that is complete.

    A text is read as it came, token by token: the first token that completes a stop string ends
    it, and of several complete by then the one that begins first cuts it.

    Args:
        pieces: strings `(B, N)`, from `pieces_of`.
        counts: int32 `(B,)`, tokens of each row.
        stop: strings `(B, S)`; empty ones mean nothing.
        at_end: whether no more tokens come: half a character at the end then counts as U+FFFD.
    """
    raw = tf.strings.reduce_join(pieces, axis=1)

    def whole():
        text = tf.strings.unicode_transcode(raw, "UTF-8", "UTF-8", errors="replace")
        return Answers(text, counts, tf.zeros_like(counts, tf.bool))

    def cut():
        return _cut(whole().text, pieces, counts, raw=raw, stop=stop, at_end=at_end)

    return Answers(*tf.cond(tf.reduce_any(stop != ""), cut, whole))


def _cut(text, pieces, counts, *, raw, stop, at_end: bool) -> Answers:
    tokens = tf.shape(pieces)[1]
    characters = _characters(pieces, raw)
    never = tokens + 1
    complete = _completed_by(characters, stop, never=never)  # (B, S, L)
    # A place of its own for what only the end of the text completes: index N.
    ended_by = tf.reduce_min(tf.reshape(complete, [tf.shape(stop)[0], -1]), axis=1)
    found = ended_by < (never if at_end else tokens)
    in_time = (complete < never) & (complete <= ended_by[:, None, None])
    length = tf.shape(complete)[2]
    begins = tf.where(in_time, tf.range(length)[None, None], length)
    first = tf.reduce_min(tf.reshape(begins, [tf.shape(stop)[0], -1]), axis=1)
    size = tf.where(found, first, tf.strings.length(text, unit="UTF8_CHAR"))
    text = tf.strings.substr(text, tf.zeros_like(size), size, unit="UTF8_CHAR")
    return Answers(text, tf.where(found, tf.minimum(ended_by + 1, counts), counts), found)


def _characters(pieces, raw) -> _Characters:
    """Gives the characters of texts, and after which token a decoder would show each."""
    codes, starts = tf.strings.unicode_decode_with_offsets(raw, "UTF-8", errors="replace")
    # One column at least: an empty text has characters to compare, too.
    shape = tf.stack([-1, tf.maximum(codes.bounding_shape(axis=1), 1)])
    total = tf.strings.length(raw)[:, None]
    starts = tf.cast(starts, tf.int32).to_tensor(0, shape=shape)
    inside = tf.sequence_mask(codes.row_lengths(), shape[1])
    starts = tf.where(inside, starts, total)
    ends = tf.concat([starts[:, 1:], total], axis=1)
    codes = codes.to_tensor(-1, shape=shape)
    ends += tf.cast(_is_broken_off(raw, codes, starts, ends), tf.int32)
    sizes = tf.cumsum(tf.strings.length(pieces), axis=1)
    return _Characters(codes, tf.searchsorted(sizes, ends, side="left"))


def _is_broken_off(raw, codes, starts, ends):
    """Says which characters are U+FFFD for a beginning whose rest is missing.

    Only the byte after these shows that they are broken: it is that one that makes them certain.
    """
    places = tf.where(codes == 0xFFFD, starts, tf.strings.length(raw)[:, None])
    shape = tf.shape(places)
    flat, rows = tf.reshape(places, [-1]), tf.repeat(tf.range(shape[0]), shape[1])
    lead = tf.strings.substr(tf.gather(raw, rows), flat, tf.ones_like(flat))
    # Bytes as Latin-1 characters: RE2 does not match broken UTF-8.
    lead = tf.strings.unicode_transcode(lead, "ISO-8859-1", "UTF-8")
    begins = tf.reshape(tf.strings.regex_full_match(lead, r"[\x{c2}-\x{f4}]"), shape)
    # U+FFFD itself has three bytes, and so have broken beginnings of four.
    is_itself = tf.reshape(lead == "\u00ef", shape) & (ends - starts == 3)
    return begins & ~is_itself


def _completed_by(characters: _Characters, stop, *, never):
    """Gives for each place at which a stop string begins the token that completes it.

    Returns:
        int32 `(B, S, L)`, `never` where it does not begin there.
    """
    wanted = tf.strings.unicode_decode(stop, "UTF-8", errors="replace").to_tensor(-1)
    length = tf.shape(characters.codes)[1]
    sizes = tf.reduce_sum(tf.cast(wanted >= 0, tf.int32), axis=2)  # (B, S)
    width = tf.stack([0, tf.shape(wanted)[2]])
    codes = tf.pad(characters.codes, tf.stack([[0, 0], width]), constant_values=-1)

    def compare(at, equal):
        here = codes[:, None, at : at + length] == wanted[:, :, at, None]
        return at + 1, equal & (here | (at >= sizes)[:, :, None])

    begins = tf.broadcast_to((sizes > 0)[:, :, None], tf.concat([tf.shape(sizes), [length]], 0))
    _, begins = tf.while_loop(
        lambda at, equal: at < tf.shape(wanted)[2],
        compare,
        (0, begins),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, None, None])),
    )
    last = tf.minimum(tf.range(length) + sizes[:, :, None] - 1, length - 1)
    completed = tf.gather(characters.made_by, tf.maximum(last, 0), batch_dims=1)
    return tf.where(begins, completed, never)
