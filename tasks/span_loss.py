"""How well start and end positions are told: loss and accuracy.

Axes: B rows, T tokens.
"""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="llama_keras")
class SpanCrossEntropy(keras.losses.Loss):
    """The mean of the cross-entropies of start and end: labels int `(B, 2)`, logits `(B, T, 2)`."""

    def __init__(self, name="span_cross_entropy", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        """Gives the loss of each row, `(B,)`."""
        logits = ops.transpose(y_pred, (0, 2, 1))  # (B, 2, T)
        labels = ops.cast(y_true, "int32")
        losses = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        return ops.mean(losses, axis=-1)


def span_accuracy(y_true, y_pred):
    """Says of each row whether its likeliest start and end are both right, float32 `(B,)`."""
    found = ops.cast(ops.argmax(y_pred, axis=1), "int32")  # (B, 2)
    return ops.cast(ops.all(found == ops.cast(y_true, "int32"), axis=-1), "float32")
