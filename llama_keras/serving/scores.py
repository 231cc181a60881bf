"""Log-likelihoods inside the graph: what `tasks.likelihood` does for `CausalLM.loglikelihood`.

Axes: B pairs, T tokens of the longest, K scored tokens of all pairs.
"""

import tensorflow as tf

from llama_keras.models import scoring
from llama_keras.text.graph import valid_utf8

# What Python's `str.rstrip` takes off.
_SPACES_AT_END = r"[\t-\r\x{1c}-\x{20}\x{85}\p{Z}]+\z"
# Places of one product with the vocabulary: 512 × 128,256 float32 logits are 250 MiB.
_BLOCK = 512


def encode_pairs(tokenizer, context, continuation):
    """Encodes as `likelihood.encode_pairs` does.

    Args:
        tokenizer: a `text.Tokenizer`.
        context, continuation: strings `(B,)`.

    Returns:
        Token ids int32 `(B, T)`, padded on the right, and int32 `(B,)` each: tokens of the contexts
        and of the wholes.
    """
    context, continuation = valid_utf8(context), valid_utf8(continuation)
    kept = tf.strings.regex_replace(context, _SPACES_AT_END, "")
    contexts = tokenizer.graph.tokenize(kept)
    wholes = tokenizer.graph.tokenize(context + continuation)
    # An empty context becomes the token that begins a text, unless the whole begins so anyway.
    begin = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    begin = tokenizer.pad_id if begin is None else begin
    empty = kept == ""
    starts = tf.fill(tf.stack([tf.size(kept), 1]), begin)
    contexts = tf.where(empty, 1, tf.cast(contexts.row_lengths(), tf.int32)), contexts
    first = wholes[:, :1].to_tensor(-1, shape=[None, 1])[:, 0]
    lacking = tf.ragged.boolean_mask(starts, (empty & (first != begin))[:, None])
    wholes = tf.concat([lacking, wholes], axis=1)
    sizes, contexts = contexts
    lengths = tf.cast(wholes.row_lengths(), tf.int32)
    shape = tf.stack([-1, tf.reduce_max(tf.concat([lengths, sizes, [1]], axis=0))])
    in_context = tf.sequence_mask(sizes, shape[1]) & ~empty[:, None]
    token_ids = tf.where(
        in_context, contexts.to_tensor(0, shape=shape), wholes.to_tensor(0, shape=shape)
    )
    return token_ids, sizes, lengths


def log_likelihoods(backbone, token_ids, sizes, lengths) -> dict[str, tf.Tensor]:
    """Gives `log_probability` float32 and `is_greedy` bool, each `(B,)`.

    Args:
        backbone: a causal `LlamaBackbone`.
        token_ids, sizes, lengths: from `encode_pairs`.
    """
    limit = backbone.config.max_sequence_length
    long = f"The model's context is {limit} tokens, and the last one of a continuation is not read;"
    checks = [
        tf.debugging.Assert(
            tf.reduce_all(lengths > sizes),
            ["A continuation has no tokens; give it some text. Tokens of contexts, of pairs:"]
            + [sizes, lengths],
        ),
        tf.debugging.Assert(
            tf.reduce_all(lengths - 1 <= limit),
            [long + " shorten it. Tokens of the pairs:", lengths],
        ),
    ]
    with tf.control_dependencies(checks):
        token_ids = tf.identity(token_ids)
    inputs, targets = token_ids[:, :-1], token_ids[:, 1:]
    columns = tf.range(tf.shape(inputs)[1])[None]
    scored = (columns >= sizes[:, None] - 1) & (columns < lengths[:, None] - 1)
    places = tf.where(scored)
    rows, width = tf.cast(places[:, 0], tf.int32), tf.shape(inputs)[1]
    flat = rows * width + tf.cast(places[:, 1], tf.int32)
    hidden = scoring.hidden_at(backbone, inputs, flat)
    values, greedy = _in_blocks(backbone, hidden, tf.boolean_mask(targets, scored))
    count = tf.shape(sizes)[0]
    total = tf.math.unsorted_segment_sum(tf.cast(values, tf.float64), rows, count)
    misses = tf.math.unsorted_segment_sum(tf.cast(~greedy, tf.int32), rows, count)
    return {"log_probability": tf.cast(total, tf.float32), "is_greedy": misses == 0}


def _in_blocks(backbone, hidden, targets):
    """Runs `scoring.score_tokens` over K places, a block at a time."""
    count = tf.shape(targets)[0]

    def score(start, values, greedy):
        part = slice(start, start + _BLOCK)
        more = scoring.score_tokens(backbone, hidden[part], targets[part])
        return start + _BLOCK, tf.concat([values, more[0]], 0), tf.concat([greedy, more[1]], 0)

    first = (0, tf.zeros([0], tf.float32), tf.zeros([0], tf.bool))
    shapes = (tf.TensorShape([]), tf.TensorShape([None]), tf.TensorShape([None]))
    _, values, greedy = tf.while_loop(
        lambda start, values, greedy: start < count,
        score,
        first,
        shape_invariants=shapes,
        parallel_iterations=1,
    )
    return values, greedy
