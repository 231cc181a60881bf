"""Contrastive learning of text vectors: a text and its like close, the others of the batch far.

Axes: B batch, T tokens, E model width.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from keras import ops

from llama_keras.errors import InputError
from llama_keras.layers import Pooling
from llama_keras.layers.pooling import POOLINGS
from llama_keras.objectives.tokens import Scores, check_mask

_VIEWS = ("dropout", "pairs")
_POSITIVE = "positive_"


def info_nce(anchors, positives, *, temperature: float = 0.05) -> Scores:
    """Gives InfoNCE with in-batch negatives (arXiv 1807.03748; SimCSE, arXiv 2104.08821, eq. 1).

    Row i has to find its own positive among those of the batch, by cosine similarity over the
    temperature. Equal texts in one batch count as negatives of each other; leave duplicates out.

    Args:
        anchors: float `(B, E)`, of any length.
        positives: float `(B, E)`.
        temperature: positive.

    Returns:
        `Scores` `(B,)`.
    """
    anchors, positives = _unit(anchors), _unit(positives)
    logits = ops.matmul(anchors, ops.transpose(positives)) / temperature  # (B, B)
    own = ops.diagonal(logits)
    right = ops.arange(ops.shape(logits)[0], dtype="int32")
    hits = ops.cast(ops.cast(ops.argmax(logits, axis=-1), "int32") == right, "float32")
    return Scores(ops.logsumexp(logits, axis=-1) - own, hits, ops.ones_like(own))


def _unit(vectors):
    return ops.normalize(ops.cast(vectors, "float32"), axis=-1)


@dataclass(frozen=True, kw_only=True)
class Contrastive:
    """InfoNCE between two views of each text.

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
        return ops.ones_like(inputs["token_ids"][:, 0], dtype="float32")

    def __call__(self, backbone, inputs, *, training: bool | None = False) -> Scores:
        """Scores a batch.

        Args:
            backbone: a `LlamaBackbone`.
            inputs: those of the backbone, and with `views="pairs"` the second texts'.
            training: whether dropout acts; without it two views by dropout are equal.

        Returns:
            `Scores` `(B,)`.
        """
        first = {k: v for k, v in inputs.items() if not k.startswith(_POSITIVE)}
        second = first
        if self.views == "pairs":
            second = {k[len(_POSITIVE) :]: v for k, v in inputs.items() if k.startswith(_POSITIVE)}
            if set(second) != set(first):
                raise InputError(
                    "contrastive with views='pairs' needs positive_token_ids and "
                    f"positive_padding_mask beside the inputs; received {sorted(inputs)}."
                )
        anchors, positives = (
            Pooling(self.pooling, dtype="float32")(
                ops.cast(backbone(view, training=training), "float32"), view["padding_mask"]
            )
            for view in (first, second)
        )
        return info_nce(anchors, positives, temperature=self.temperature)
