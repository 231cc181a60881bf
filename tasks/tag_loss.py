"""How well tags are told: loss and accuracy over the tokens that have one.

Axes: B batch, T tokens, C tags.
"""

import keras
from keras import ops

from llama_keras.layers import LinearChainCRF

NO_LABEL = -1  # as `data.bucketing` has it


class TagLoss(keras.losses.Loss):
    """The mean over tagged tokens of the negative log-likelihood.

    Args:
        chain: scores whole sequences; None takes each tag by itself.
        **kwargs: of `keras.losses.Loss`.
    """

    def __init__(self, chain: LinearChainCRF | None = None, *, name="tag_loss", **kwargs):
        super().__init__(name=name, **kwargs)
        self.chain = chain

    def loss_count(self, y):
        """Gives the number of tagged tokens of tags `(B, T)`, float32: what the mean is over."""
        return ops.sum(ops.cast(ops.not_equal(ops.cast(y, "int32"), NO_LABEL), "float32"))

    def call(self, y_true, y_pred):
        """Gives `(B,)`, whose mean is the loss, of tags `(B, T)` and emissions `(B, T, C)`."""
        y = ops.cast(y_true, "int32")
        mask, tags = ops.not_equal(y, NO_LABEL), ops.maximum(y, 0)
        if self.chain is not None:
            loss = -self.chain.log_likelihood(y_pred, tags, mask)
        else:
            of_tokens = ops.sparse_categorical_crossentropy(tags, y_pred, from_logits=True)
            loss = ops.sum(ops.where(mask, of_tokens, 0.0), axis=1)
        # Keras takes the mean over sentences; they count by their tokens.
        tokens = ops.maximum(self.loss_count(y), 1.0)
        return loss * ops.cast(ops.shape(y)[0], "float32") / tokens


class TagAccuracy(keras.metrics.Mean):
    """Share of right tags among those of tokens that have one, of the best legal sequence.

    Args:
        chain: a `LinearChainCRF`.
        **kwargs: of `keras.metrics.Mean`.
    """

    def __init__(self, chain: LinearChainCRF, **kwargs):
        super().__init__(**kwargs)
        self.chain = chain

    def update_state(self, y, emissions, sample_weight=None):
        """Counts a batch: tags `(B, T)`, `NO_LABEL` where there is none, emissions `(B, T, C)`."""
        mask = ops.not_equal(y, NO_LABEL)
        right = ops.equal(self.chain(emissions, mask), ops.cast(y, "int32"))
        weights = ops.cast(mask, "float32")
        if sample_weight is not None:
            weights = weights * ops.reshape(ops.cast(sample_weight, "float32"), (-1, 1))
        values = ops.reshape(ops.cast(right, "float32"), (-1,))
        return super().update_state(values, sample_weight=ops.reshape(weights, (-1,)))
