"""Contrastive learning of text vectors: a text and its like close, the others of the batch far.

Axes: B batch, T tokens, E model width.
"""

import contextlib
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from keras import ops

from llama_keras.errors import InputError
from llama_keras.layers import Pooling
from llama_keras.layers.pooling import POOLINGS
from llama_keras.objectives.tokens import Scores, check_mask

_VIEWS = ("dropout", "pairs")
_POSITIVE = "positive_"
_NEVER = -1e9


def info_nce(anchors, positives, *, temperature: float = 0.05, equal=None) -> Scores:
    """Gives InfoNCE with in-batch negatives (arXiv 1807.03748; SimCSE, arXiv 2104.08821, eq. 1).

    Row i has to find its own positive among those of the batch, by cosine similarity over the
    temperature.

    Args:
        anchors: float `(B, E)`, of any length.
        positives: float `(B, E)`.
        temperature: positive.
        equal: bool `(B, B)`, true where rows hold equal texts, which are no negatives of each
            other; by default all differ.

    Returns:
        `Scores` `(B,)`; the weight is 0 where a row has no negative.
    """
    anchors, positives = _unit(anchors), _unit(positives)
    logits = ops.matmul(anchors, ops.transpose(positives)) / temperature  # (B, B)
    own = ops.diagonal(logits)
    right = ops.arange(ops.shape(logits)[0], dtype="int32")
    is_other = right[:, None] != right[None]
    if equal is not None:
        logits = ops.where(ops.logical_and(equal, is_other), _NEVER, logits)
        is_other = ops.logical_and(is_other, ops.logical_not(equal))
    hits = ops.cast(ops.cast(ops.argmax(logits, axis=-1), "int32") == right, "float32")
    weights = ops.cast(ops.any(is_other, axis=-1), "float32")
    return Scores(ops.logsumexp(logits, axis=-1) - own, hits, weights)


def _unit(vectors):
    return ops.normalize(ops.cast(vectors, "float32"), axis=-1)


def _equal_rows(view):
    """Gives bool (B, B), true where two rows of a view hold the same tokens."""
    ids = ops.where(ops.cast(view["padding_mask"], "bool"), view["token_ids"], -1)
    return ops.all(ids[:, None] == ids[None], axis=-1)


@contextlib.contextmanager
def _same_draws(backbone):
    """Has dropout draw the same each time, and leaves its random state as it was."""
    generators = [getattr(layer, "seed_generator", None) for layer in backbone._flatten_layers()]
    states = [generator.state for generator in generators if generator is not None]
    before = [ops.copy(state) for state in states]
    for number, state in enumerate(states):
        state.assign(np.array([number, 0]))
    try:
        yield
    finally:
        for state, value in zip(states, before, strict=True):
            state.assign(value)


@dataclass(frozen=True, kw_only=True)
class Contrastive:
    """InfoNCE between two views of each text; equal texts are never each other's negatives.

    Attributes:
        temperature: of the similarities.
        pooling: "mean" or "last", see `layers.Pooling`.
        views: "dropout" (SimCSE: the same text twice, under two draws of dropout) or "pairs" (the
            inputs hold a second text under `positive_token_ids` and `positive_padding_mask`).

    Example:
    ```python
    from llama_keras.models import LlamaBackbone
    from llama_keras.objectives import Contrastive

    backbone = LlamaBackbone.from_preset("llama-tiny", dropout=0.1)
    ids = keras.ops.array([[5, 9, 7], [8, 8, 4]])
    inputs = {"token_ids": ids, "padding_mask": keras.ops.ones_like(ids)}
    scores = Contrastive(pooling="last")(backbone, inputs, training=True)
    assert scores.losses.shape == (2,)
    ```
    """

    name: ClassVar[str] = "contrastive"
    attention_masks: ClassVar[tuple[str, ...]] = ("bidirectional", "causal")
    layout: ClassVar[str] = "views"
    temperature: float = 0.05
    pooling: Literal["mean", "last"] = "mean"
    views: Literal["dropout", "pairs"] = "dropout"

    def __post_init__(self):
        if not self.temperature > 0:
            raise InputError(f"temperature must be positive; received {self.temperature!r}.")
        for value, known in ((self.pooling, tuple(POOLINGS)), (self.views, _VIEWS)):
            if value not in known:
                raise InputError(f"contrastive: {value!r} is not one of {list(known)}.")

    def check(self, backbone) -> None:
        """Raises `InputError`, with the remedy, where the backbone does not suit."""
        check_mask(self, backbone)
        if self.views == "dropout" and not backbone.config.dropout:
            raise InputError(
                "contrastive with views='dropout' needs a backbone with dropout, else both views "
                "of a text are equal: give dropout=0.1 among the backbone's arguments, or "
                "views='pairs'."
            )

    def weights_of(self, inputs):
        """Gives `Scores.weights` of inputs as `__call__` takes them, without a model."""
        equal = self._equal(*self._views_of(inputs))
        return ops.cast(ops.any(ops.logical_not(equal), axis=-1), "float32")

    def __call__(self, backbone, inputs, *, training: bool | None = False) -> Scores:
        """Scores a batch.

        Args:
            backbone: a `LlamaBackbone`.
            inputs: those of the backbone, and with `views="pairs"` the second texts'.
            training: whether dropout acts. With `views="dropout"` it always does, for views
                without it are equal; outside of training it draws the same each time.

        Returns:
            `Scores` `(B,)`; the weight is 0 where all texts of the batch are equal.
        """
        views = self._views_of(inputs)
        is_fixed = self.views == "dropout" and not training
        with _same_draws(backbone) if is_fixed else contextlib.nullcontext():
            anchors, positives = (
                Pooling(self.pooling, dtype="float32")(
                    ops.cast(backbone(view, training=is_fixed or training), "float32"),
                    view["padding_mask"],
                )
                for view in views
            )
        equal = self._equal(*views)
        return info_nce(anchors, positives, temperature=self.temperature, equal=equal)

    def _views_of(self, inputs):
        first = {k: v for k, v in inputs.items() if not k.startswith(_POSITIVE)}
        if self.views == "dropout":
            return first, first
        second = {k[len(_POSITIVE) :]: v for k, v in inputs.items() if k.startswith(_POSITIVE)}
        if set(second) != set(first):
            raise InputError(
                "contrastive with views='pairs' needs positive_token_ids and "
                f"positive_padding_mask beside the inputs; received {sorted(inputs)}."
            )
        return first, second

    def _equal(self, first, second):
        equal = _equal_rows(first)
        return equal if first is second else ops.logical_or(equal, _equal_rows(second))
