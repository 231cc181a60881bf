"""What a `MaskedLM` answers to when it is served.

Axes: B texts, M masks of the text that has most, K fillings, T tokens, V vocabulary.
"""

import tensorflow as tf

from llama_keras.data.token_windows import padded
from llama_keras.serving.masked_texts import encode_masked
from llama_keras.serving.signature_parts import Signatures, cleaning_steps, tokens_signature
from llama_keras.tasks.mask_tokens import MASK_TEXT
from llama_keras.text.graph import ragged


def masked_lm_signatures(model, *, top_k: int = 5) -> Signatures:
    """Gives `serving_default` and `fill` (texts to fillings) and `tokens` (ids to logits).

    Inputs and outputs, all with the batch B first:
        `text` string `(B,)`, each with one `<mask>` or several → `text` string `(B,)`, with the
        likeliest filling of each mask; `count` int32 `(B,)`, its masks; and of each mask, in the
        order of the text, the likeliest tokens: `token` string, `token_id` int32 and `score`
        float32, `(B, M, K)` each. Rows with fewer masks end with empty strings, -1 and 0.
        `token_ids`, `padding_mask` int32 `(B, T)` → `logits` float32 `(B, T, V)`.
    What `MaskedLM.predict` refuses fails the request with the same reason.

    Args:
        model: a `MaskedLM`.
        top_k: K.

    Raises:
        InputError: `top_k` is out of range.
    """
    model.check_top_k(top_k)
    tokenizer, mask_id = model.tokenizer, model.mask_tokens.mask_id
    texts = tokenizer.graph.texts

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def fill(text):
        rows = encode_masked(tokenizer, text, mask_id=mask_id, cleaning=model.cleaning)
        is_mask = rows.with_values(rows.values == mask_id)
        counts = tf.reduce_sum(tf.cast(is_mask, tf.int32), axis=1)
        rows = rows.with_values(_checked(rows, counts, model))
        masks = tf.reduce_max(tf.concat([counts, [0]], axis=0))
        features = padded(rows, tokenizer.pad_id)
        scores, ids = model.fillings(features, masks=masks, top_k=top_k)
        real = tf.sequence_mask(counts, masks)
        best = tf.boolean_mask(ids[:, :, 0], real)
        filled = tf.tensor_scatter_nd_update(rows.values, tf.where(is_mask.values), best)
        tokens, shown = _texts_of(texts, ids), real[:, :, None]
        return {
            "text": texts.detokenize(rows.with_values(filled), skip_special_tokens=True),
            "count": counts,
            "token": tf.where(shown, tokens, ""),
            "token_id": tf.where(shown, ids, -1),
            "score": tf.where(shown, scores, 0.0),
        }

    return Signatures(
        task="masked_lm",
        functions={"serving_default": fill, "fill": fill, "tokens": tokens_signature(model)},
        trackables={"tokenizer": tokenizer.graph},
        labels=(),
        example_text=f"The weather is {MASK_TEXT} today.",
        cleaning=cleaning_steps(model),
        settings={"top_k": top_k, "mask": MASK_TEXT, **model.learning_config()},
    )


def _checked(rows, counts, model):
    """Gives the ids of all rows once each row has been found to be one that can be filled."""
    limit, shift = model.max_sequence_length, model.objective.shift
    first = rows[:, :1].to_tensor(-1, shape=[None, 1])[:, 0]
    lengths, mask_id = tf.cast(rows.row_lengths(), tf.int32), model.mask_tokens.mask_id
    checks = (
        (counts == 0, f"has no {MASK_TEXT}; write it where to fill in."),
        (lengths > limit, f"has more than {limit} tokens, which the model takes; shorten it."),
        (
            (first == mask_id) & bool(shift),
            f"begins with {MASK_TEXT}, but {model.objective.name!r} predicts a token from the one "
            "before it; put a word first.",
        ),
    )
    asserted = [
        tf.debugging.Assert(
            ~tf.reduce_any(is_wrong),
            [f"A text {reason} Numbers of such texts:", tf.where(is_wrong)],
        )
        for is_wrong, reason in checks
    ]
    with tf.control_dependencies(asserted):
        return tf.identity(rows.values)


def _texts_of(texts, ids):
    """Gives the text of each id by itself, strings of the shape of `ids`."""
    flat = tf.reshape(ids, [-1])
    alone = ragged(flat, tf.range(tf.size(flat, tf.int64) + 1))
    return tf.reshape(texts.detokenize(alone), tf.shape(ids))
