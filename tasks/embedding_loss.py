"""The contrastive loss of an `Embedder`, and how often the right text of the batch is nearest.

Axes: B batch, V views (anchor, positive, negative), C candidates, E vector.
"""

import keras
from keras import ops

from llama_keras.objectives import Scores

_NEVER = -1e9


def in_batch_scores(numbers, vectors, *, temperature: float) -> Scores:
    """Gives the loss of each example, whether it finds its own, and whether it counts.

    Vectors `(B, V, E)`: InfoNCE (arXiv 1807.03748; with hard negatives SimCSE, arXiv 2104.08821,
    eq. 5). Each anchor has to find its positive among all positives and negatives of the batch, by
    cosine similarity over the temperature. Left out are texts that are known to be no negatives:
    the anchor's own text, and every positive of an equal anchor. As `objectives.info_nce` where
    there are no such texts and no negatives.

    Vectors `(B, E)`: supervised contrastive learning (arXiv 2004.11362, eq. 2). Each text has to
    find those of its class among all others of the batch.

    Args:
        numbers: `(B, V)`, equal for equal texts; or `(B,)`, classes.
        vectors: float, of any length.
        temperature: positive.

    Returns:
        `Scores` `(B,)`; the weight is 0 where there is nothing to tell apart.
    """
    vectors = ops.normalize(ops.cast(vectors, "float32"), axis=-1)
    make = _pair_scores if len(vectors.shape) == 3 else _class_scores
    return make(numbers, vectors, temperature)


def _pair_scores(numbers, vectors, temperature) -> Scores:
    views = range(1, vectors.shape[1])
    candidates = ops.concatenate([vectors[:, view] for view in views])  # (C, E)
    texts = ops.concatenate([numbers[:, view] for view in views])  # (C,)
    logits = ops.matmul(vectors[:, 0], ops.transpose(candidates)) / temperature  # (B, C)
    anchors, positives = numbers[:, 0], numbers[:, 1]
    places = ops.arange(ops.shape(logits)[0], dtype="int32")
    is_own = places[:, None] == ops.arange(ops.shape(logits)[1], dtype="int32")[None]
    same_anchor = ops.cast(anchors[:, None] == anchors[None], "float32")  # (B, B)
    is_text = ops.cast(positives[:, None] == texts[None], "float32")  # (B, C)
    is_like = ops.logical_or(ops.matmul(same_anchor, is_text) > 0, anchors[:, None] == texts[None])
    logits = ops.where(ops.logical_and(is_like, ops.logical_not(is_own)), _NEVER, logits)
    own = ops.sum(ops.where(is_own, logits, 0.0), axis=-1)
    hits = ops.cast(ops.argmax(logits, axis=-1), "int32") == places
    is_negative = ops.logical_not(ops.logical_or(is_like, is_own))
    return Scores(
        ops.logsumexp(logits, axis=-1) - own,
        ops.cast(hits, "float32"),
        ops.cast(ops.any(is_negative, axis=-1), "float32"),
    )


def _class_scores(numbers, vectors, temperature) -> Scores:
    logits = ops.matmul(vectors, ops.transpose(vectors)) / temperature  # (B, B)
    places = ops.arange(ops.shape(logits)[0], dtype="int32")
    is_self = places[:, None] == places[None]
    same = numbers[:, None] == numbers[None]
    logits = ops.where(is_self, _NEVER, logits)
    mates = ops.cast(ops.logical_and(same, ops.logical_not(is_self)), "float32")
    count = ops.sum(mates, axis=-1)
    log_shares = logits - ops.logsumexp(logits, axis=-1, keepdims=True)
    losses = -ops.sum(log_shares * mates, axis=-1) / ops.maximum(count, 1.0)
    nearest = ops.cast(ops.argmax(logits, axis=-1), "int32")[:, None]
    hits = ops.take_along_axis(mates, nearest, axis=-1)[:, 0]
    counts = ops.logical_and(count > 0, ops.any(ops.logical_not(same), axis=-1))
    return Scores(losses, hits, ops.cast(counts, "float32"))


@keras.saving.register_keras_serializable(package="llama_keras")
class InBatchContrastive(keras.losses.Loss):
    """The mean of `in_batch_scores` over the examples of a batch that count.

    Args:
        temperature: of the similarities.
        **kwargs: of `keras.losses.Loss`.
    """

    def __init__(self, temperature: float = 0.05, *, name="contrastive", **kwargs):
        super().__init__(name=name, **kwargs)
        self.temperature = temperature

    def call(self, y_true, y_pred):
        """Gives `(B,)`, whose mean is the loss."""
        losses, _, weights = in_batch_scores(y_true, y_pred, temperature=self.temperature)
        share = ops.mean(weights)
        return losses * weights / ops.where(share > 0, share, 1.0)

    def get_config(self):
        """Gives the arguments of the constructor."""
        return {**super().get_config(), "temperature": self.temperature}


@keras.saving.register_keras_serializable(package="llama_keras")
class RetrievalAccuracy(keras.metrics.Mean):
    """The share of examples whose nearest text of the batch is a right one; 1 / B by chance."""

    def __init__(self, name="retrieval_accuracy", **kwargs):
        super().__init__(name=name, **kwargs)

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Counts a batch in."""
        _, hits, weights = in_batch_scores(y_true, y_pred, temperature=1.0)
        return super().update_state(hits, sample_weight=weights)
