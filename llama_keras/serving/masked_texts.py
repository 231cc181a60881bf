"""Texts with `<mask>` to token ids inside the graph: what `tasks.mask_tokens.encode_masked` does.

Axes: B texts, P pieces between the masks of all texts.
"""

import tensorflow as tf

from llama_keras.tasks.mask_tokens import MASK_TEXT
from llama_keras.text.graph import ragged, valid_utf8

# A text that begins with what Python's `str.isspace` says yes to.
_SPACE_FIRST = r"(?s)[\t-\r\x{1c}-\x{20}\x{85}\p{Z}].*"


def encode_masked(
    tokenizer, texts, *, mask_id: int, cleaning=None, add_bos: bool | None = None
) -> tf.RaggedTensor:
    """Gives the ids of texts in which `<mask>` stands for one token, ragged `(B, None)` int32.

    Args:
        tokenizer: a `text.Tokenizer`.
        texts: strings `(B,)`; invalid bytes count as U+FFFD.
        mask_id: what `<mask>` becomes.
        cleaning: a `text.cleaning.Cleaning` or None; it sees what stands between the masks.
        add_bos: start with the begin-of-text id; None follows the tokenizer's own rule.
    """
    pieces = tf.strings.split(valid_utf8(texts), MASK_TEXT)  # one at least of each text
    rows = pieces.value_rowids()
    follows = rows[1:] == rows[:-1]
    # An empty batch has no pieces, neither a first nor a last one.
    is_first = tf.concat([[True], ~follows], axis=0)[: tf.size(rows)]
    is_last = tf.concat([~follows, [True]], axis=0)[: tf.size(rows)]
    # A mask takes one space before it along.
    parts = tf.strings.regex_replace(pieces.values, r" \z", "")
    parts = tf.where(is_last, pieces.values, parts)
    if cleaning is not None:
        parts = _cleaned(parts, is_first, cleaning)
    ids = tokenizer.graph.tokenize(parts, add_bos=False, add_eos=False)
    masks = tf.fill(tf.stack([tf.size(rows), 1]), mask_id)
    masks = tf.ragged.boolean_mask(masks, tf.logical_not(is_first)[:, None])
    joined = tf.concat([masks, ids], axis=1)
    found = ragged(joined.values, tf.gather(joined.row_splits, pieces.row_splits))
    return tokenizer.graph.frame.ids(found, add_bos=add_bos, add_eos=False)


def _cleaned(parts, is_first, cleaning):
    """Gives cleaned pieces `(P,)` with the space behind a mask that cleaning took."""
    cleaned = cleaning(parts)
    lost = ~is_first & (cleaned != "") & tf.strings.regex_full_match(parts, _SPACE_FIRST)
    lost &= ~tf.strings.regex_full_match(cleaned, _SPACE_FIRST)
    return tf.where(lost, tf.strings.join([" ", cleaned]), cleaned)
