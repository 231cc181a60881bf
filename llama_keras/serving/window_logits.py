"""Windows of texts through a model, a few at a time: a book must not fill the memory.

Axes: R rows (windows), T tokens, C what the head gives.
"""

import tensorflow as tf

from llama_keras.data.row_parts import in_parts
from llama_keras.data.token_windows import padded

# Tokens, padding included, that go through the model at once: short rows still go together.
TOKENS_AT_ONCE = 8192


def window_logits(model, rows, *, size: int) -> tf.Tensor:
    """Gives the logits, float32 `(R, T, C)`, of ragged rows of token ids `(R, None)`.

    Args:
        model: a task.
        rows: the ids.
        size: C.
    """
    features = padded(rows, model.tokenizer.pad_id)
    names = tuple(features)
    width = tf.shape(features["token_ids"])[1]

    def logits_of(*part):
        return (model(dict(zip(names, part, strict=True)), training=False),)

    (logits,) = in_parts(
        logits_of,
        tuple(features.values()),
        outputs=[tf.TensorSpec([None, None, size], tf.float32)],
        rows_at_once=tf.maximum(TOKENS_AT_ONCE // width, 1),
    )
    return logits
