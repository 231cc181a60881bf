"""Floating-point operations of a training step. A multiply-add counts as two."""

from dataclasses import dataclass

from llama_keras.planning.settings import Settings
from llama_keras.planning.shapes import Shape, weights_of


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Operations of one token in one step.

    Attributes:
        products: what the weights need: 2 a weight forward, 4 backward, 2 where it is frozen.
        attention: 12 H D T a layer: scores and mixtures over all T places, masked ones too (PaLM's
            appendix B, arXiv 2204.02311).
        recomputed: what is done beside: blocks (`remat`) and the head (chunked logits) a second
            time.
    """

    products: float
    attention: float
    recomputed: float

    @property
    def model(self) -> float:
        """What the step needs, however it is computed: the numerator of MFU."""
        return self.products + self.attention

    @property
    def computed(self) -> float:
        """What the device does."""
        return self.model + self.recomputed


def flops_of(shape: Shape, settings: Settings) -> Flops:
    """Gives the operations of one token of a training step."""
    weights = [w for w in weights_of(shape, lora_rank=settings.lora_rank) if len(w.shape) == 2]
    multiplied = [w for w in weights if w.part != "embedding"]
    head = sum(w.count for w in multiplied if w.part == "head")
    blocks = sum(w.count for w in multiplied if w.part in ("block", "lora"))
    products = sum(w.count * (6 if w.learned else 4) for w in multiplied)
    forward = 4 * shape.num_layers * shape.size("Q") * settings.sequence_length
    recomputed = 0.0
    if settings.remat:
        recomputed += 2 * blocks + forward
    if settings.logits == "chunked":
        recomputed += 2 * head
    return Flops(products=products, attention=3 * forward, recomputed=recomputed)
