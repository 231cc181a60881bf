"""Loss and metrics of tasks whose `call` gives an objective's `Scores`.

Losses, accuracies and perplexities are means over the predicted tokens, whatever the batches.
"""

from typing import Any

import keras
from keras import ops

from llama_keras.errors import InputError
from llama_keras.objectives import Scores

_MISSING = (
    "The objective needs 'targets' and 'weights' beside the token features; give texts, or batches "
    "of data.corrupted."
)


class ObjectiveScores:
    """Mixed into a `keras.Model`; call `make_token_metrics` in its constructor."""

    token_loss: keras.metrics.Mean
    token_hits: keras.metrics.Mean
    loss_is_scaled = False
    objective: Any

    def make_token_metrics(self) -> None:
        """Makes the sums over tokens that the metrics are read from."""
        self.token_loss = keras.metrics.Mean(name="token_loss")
        self.token_hits = keras.metrics.Mean(name="token_hits")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Gives the mean loss over the batch's predicted tokens."""
        if not isinstance(y_pred, Scores):
            raise InputError(_MISSING)
        total, count = ops.sum(y_pred.losses * y_pred.weights), ops.sum(y_pred.weights)
        return total / ops.where(count > 0, count, 1.0)

    def loss_count(self, x, y=None, sample_weight=None):
        """Gives the weights of the batch's predicted tokens, summed: what the mean is over."""
        try:
            return ops.sum(self.objective.weights_of(x))
        except KeyError as error:
            raise InputError(_MISSING) from error

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Counts the batch's predicted tokens in."""
        # Flat, for Keras takes the mean over each row first, whose width depends on the batch.
        losses, hits, weights = (ops.reshape(part, (-1,)) for part in y_pred)
        self.token_loss.update_state(losses, sample_weight=weights)
        self.token_hits.update_state(hits, sample_weight=weights)
        return self.get_metrics_result()

    def get_metrics_result(self):
        """Gives `loss`, `accuracy` and `perplexity`, over all tokens counted so far."""
        loss = self.token_loss.result()
        return {
            "loss": loss,
            "accuracy": self.token_hits.result(),
            "perplexity": ops.exp(loss),
        }
