"""How likely each token of given texts is, inside the graph, and which ones would be likelier.

Axes: B rows, T tokens, K likeliest tokens, N places of a block, V vocabulary.
"""

import tensorflow as tf

from llama_keras.models import scoring

# The most that OpenAI's API gives of one place.
TOP = 20
# Places of one product with the vocabulary: 512 × 128,256 float32 logits are 250 MiB.
_BLOCK = 512


def next_token_scores(backbone, token_ids, padding_mask) -> dict[str, tf.Tensor]:
    """Gives for each token how likely the one after it is, and the likeliest in its place.

    Padding may stand anywhere; what is given counts the tokens without it, and ends with zeros.

    Args:
        backbone: a causal `LlamaBackbone`.
        token_ids, padding_mask: int32 `(B, T)`.

    Returns:
        `next_log_probability` float32 `(B, T)`, 0 for a row's last token, which has none after it;
        `top_token_ids` int32 and `top_log_probability` float32 `(B, T, K)`, likeliest first.
    """
    rows = tf.ragged.boolean_mask(token_ids, padding_mask != 0)
    limit = backbone.config.max_sequence_length
    lengths = tf.cast(rows.row_lengths(), tf.int32)
    found = f"The model's context is {limit} tokens; shorten the text. Tokens of the texts:"
    check = tf.debugging.Assert(tf.reduce_all(lengths <= limit), [found, lengths])
    with tf.control_dependencies([check]):
        length = tf.maximum(tf.cast(rows.bounding_shape(axis=1), tf.int32), 1)
    token_ids = rows.to_tensor(0, shape=tf.stack([-1, length]))
    count = tf.shape(token_ids)[0]
    inside = tf.sequence_mask(lengths, length)
    places = tf.cast(tf.where(tf.reshape(inside, [-1]))[:, 0], tf.int32)
    hidden = scoring.hidden_at(backbone, token_ids, places)
    targets = tf.concat([token_ids[:, 1:], tf.zeros([count, 1], tf.int32)], axis=1)
    parts = _in_blocks(backbone, hidden, tf.boolean_mask(targets, inside))
    value, top_ids, top_values = (_placed(part, inside) for part in parts)
    has_next = tf.sequence_mask(lengths - 1, length)
    return {
        "next_log_probability": tf.where(has_next, value, 0.0),
        "top_token_ids": top_ids,
        "top_log_probability": top_values,
    }


def _placed(values: tf.Tensor, inside: tf.Tensor) -> tf.Tensor:
    shape = tf.concat([tf.shape(inside), tf.shape(values)[1:]], axis=0)
    placed = tf.scatter_nd(tf.cast(tf.where(inside), tf.int32), values, shape)
    return tf.ensure_shape(placed, [None, None, *values.shape[1:]])


def _in_blocks(backbone, hidden, targets):
    """Gives log-probabilities `(N,)`, ids and values of the likeliest `(N, K)` of all places."""
    count = tf.shape(targets)[0]
    top = min(TOP, backbone.config.vocabulary_size)

    def score(start, *made):
        part = slice(start, start + _BLOCK)
        logits = backbone.token_embedding(hidden[part], reverse=True)
        logits = tf.cast(logits, tf.float32)
        total = tf.reduce_logsumexp(logits, axis=-1, keepdims=True)
        best = tf.math.top_k(logits, top)
        chosen = tf.gather(logits, targets[part][:, None], batch_dims=1)
        new = ((chosen - total)[:, 0], best.indices, best.values - total)
        return start + _BLOCK, *(tf.concat(x, axis=0) for x in zip(made, new, strict=True))

    empty = (tf.zeros([0]), tf.zeros([0, top], tf.int32), tf.zeros([0, top]))
    shapes = (tf.TensorShape([]), *(tf.TensorShape([None, *x.shape[1:]]) for x in empty))
    _, *made = tf.while_loop(
        lambda start, *_: start < count,
        score,
        (0, *empty),
        shape_invariants=shapes,
        parallel_iterations=1,
    )
    return made
