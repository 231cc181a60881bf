"""Objectives that predict tokens: the next one, or those that noise hid.

Axes: B batch, T tokens.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from keras import ops

from llama_keras.errors import InputError
from llama_keras.objectives.cross_entropy import CHUNK, head_kernel, token_losses


class Scores(NamedTuple):
    """What an objective says of a batch; all of one shape, float32."""

    losses: Any
    """In nats; 0 where the weight is 0."""
    hits: Any
    """1 where the right answer is the likeliest one."""
    weights: Any
    """How much each place counts."""


def check_mask(objective, backbone) -> None:
    """Raises `InputError` unless the backbone looks where the objective needs it to look."""
    mask = backbone.config.attention_mask
    if mask not in objective.attention_masks:
        needed = " or ".join(map(repr, objective.attention_masks))
        raise InputError(
            f"The objective {objective.name!r} needs a backbone with attention_mask={needed}; this "
            f"one has {mask!r}. Build it with from_preset(…, backbone_arguments="
            f"{{'attention_mask': {objective.attention_masks[0]!r}}})."
        )


@dataclass(frozen=True, kw_only=True)
class TokenObjective:
    """Cross-entropy of chosen tokens, from the state in their place or in the one before.

    `data.corrupted` makes its batches out of clean token ids as `layout` says.

    Attributes:
        name: its name in `OBJECTIVES`.
        attention_masks: of the backbones that it suits.
        layout: "clean" (the input is the clean text, every token counts), "corrupted" (the input
            is corrupted in place, the corrupted tokens count) or "prefix" (the input is corrupted
            text, a separator, clean text and an end token; the clean text and the end count).
        shift: 0 predicts token i from the state at i, 1 from the state at i - 1.
        chunk: tokens whose logits exist together, see `chunked_cross_entropy`.

    Example:
    ```python
    from llama_keras.models import LlamaBackbone
    from llama_keras.objectives import OBJECTIVES

    backbone = LlamaBackbone.from_preset("llama-tiny", attention_mask="bidirectional")
    ids = keras.ops.array([[5, 9, 7]])  # the middle token hides another one
    inputs = {"token_ids": ids, "padding_mask": keras.ops.ones_like(ids)}
    inputs |= {"targets": keras.ops.array([[5, 6, 7]]), "weights": keras.ops.array([[0, 1, 0]])}
    scores = OBJECTIVES["masked"](backbone, inputs)
    assert scores.losses.shape == (1, 3)
    ```
    """

    name: str
    attention_masks: tuple[str, ...]
    layout: Literal["clean", "corrupted", "prefix"]
    shift: Literal[0, 1]
    chunk: int = CHUNK

    def check(self, backbone) -> None:
        """Raises `InputError`, with the remedy, where the backbone does not suit."""
        check_mask(self, backbone)

    def weights_of(self, inputs):
        """Gives `Scores.weights` of inputs as `__call__` takes them, without a model."""
        weights = ops.cast(inputs["weights"], "float32")
        return weights[:, 1:] * _follows(inputs) if self.shift else weights

    def __call__(self, backbone, inputs, *, training: bool | None = False) -> Scores:
        """Scores a batch.

        Args:
            backbone: a `LlamaBackbone`.
            inputs: those of the backbone, and besides `targets` int `(B, T)`, the clean token of
                each place, and `weights` float or int `(B, T)`, how much its prediction counts.
            training: whether dropout acts.

        Returns:
            `Scores` `(B, T)`, or `(B, T - 1)` for the tokens from the second on where `shift` is
            1. A token whose predecessor is padding or of another segment does not count there.
        """
        features = {k: v for k, v in inputs.items() if k not in ("targets", "weights")}
        hidden = backbone(features, training=training)
        targets, weights = inputs["targets"], self.weights_of(inputs)
        if self.shift:
            hidden, targets = hidden[:, :-1], targets[:, 1:]
        losses, hits = token_losses(
            hidden,
            head_kernel(backbone.token_embedding),
            targets=targets,
            mask=weights != 0,
            chunk=self.chunk,
        )
        return Scores(losses, hits, weights)


def _follows(features):
    """Gives float32 (B, T - 1): whether the token before belongs to the same text."""
    same = ops.cast(features["padding_mask"], "bool")[:, :-1]
    if (segments := features.get("segment_ids")) is not None:
        same = ops.logical_and(same, segments[:, 1:] == segments[:, :-1])
    return ops.cast(same, "float32")


CAUSAL = TokenObjective(name="causal", attention_masks=("causal",), layout="clean", shift=1)
# BERT (arXiv 1810.04805): the bidirectional prediction error at the corrupted places.
MASKED = TokenObjective(
    name="masked", attention_masks=("bidirectional",), layout="corrupted", shift=0
)
# LLM2Vec (arXiv 2404.05961, section 2.2): a causal checkpoint's head expects token i at i - 1, so
# that is where the adapted model goes on predicting it.
MASKED_NEXT_TOKEN = TokenObjective(
    name="masked_next_token", attention_masks=("bidirectional",), layout="corrupted", shift=1
)
# The denoising autoencoder. Deletion moves every later token, so corrupted and clean text have no
# common places: the corrupted text is a prefix that sees itself both ways, and the clean text is
# written after it, token by token (BART's reconstruction, arXiv 1910.13461, in one prefix LM).
DENOISING = TokenObjective(name="denoising", attention_masks=("prefix",), layout="prefix", shift=1)
