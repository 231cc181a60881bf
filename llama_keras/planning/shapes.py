"""Every weight of a Llama by its dimensions, from its configuration alone.

Dimensions: V vocabulary, E model width, Q all query heads, K all key-value heads, F intermediate
width, P learned positions, R LoRA's rank.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from llama_keras.errors import InputError
from llama_keras.weights.presets import PRESETS, backbone_config, resolve

# What goes into a projection, and what comes out.
_ATTENTION = {"query": "EQ", "key": "EK", "value": "EK", "output": "QE"}
_FEED_FORWARDS = {
    "swiglu": {"gate": "EF", "up": "EF", "down": "FE"},
    "mlp": {"up": "EF", "down": "FE"},
}
# Sizes that are planned for more often than they are at hand: their public config.json.
PAPER_SHAPES: dict[str, dict[str, Any]] = {
    "llama-3.2-1b": {  # huggingface.co/meta-llama/Llama-3.2-1B: 1,235,814,400 weights
        "vocabulary_size": 128256,
        "num_layers": 16,
        "num_query_heads": 32,
        "num_key_value_heads": 8,
        "hidden_dim": 2048,
        "intermediate_dim": 8192,
        "max_sequence_length": 131072,
        "tie_word_embeddings": True,
    },
    "llama-3.1-8b": {  # huggingface.co/meta-llama/Llama-3.1-8B: 8,030,261,248 weights
        "vocabulary_size": 128256,
        "num_layers": 32,
        "num_query_heads": 32,
        "num_key_value_heads": 8,
        "hidden_dim": 4096,
        "intermediate_dim": 14336,
        "max_sequence_length": 131072,
    },
    "llama-2-7b": {  # huggingface.co/meta-llama/Llama-2-7b-hf: 6,738,415,616 weights
        "vocabulary_size": 32000,
        "num_layers": 32,
        "num_query_heads": 32,
        "num_key_value_heads": 32,
        "hidden_dim": 4096,
        "intermediate_dim": 11008,
        "max_sequence_length": 4096,
    },
}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a Llama; names as in `models.LlamaConfig`."""

    name: str
    vocabulary_size: int
    num_layers: int
    num_query_heads: int
    num_key_value_heads: int
    hidden_dim: int
    intermediate_dim: int
    head_dim: int
    max_sequence_length: int
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    feed_forward: str = "swiglu"
    positions: str = "rotary"
    learned_temperature: bool = False

    @classmethod
    def from_config(cls, name: str, config: Mapping[str, Any]) -> "Shape":
        """Takes the sizes out of arguments of `LlamaBackbone`, with its defaults."""
        given = {key: x for key, x in config.items() if key in cls.__dataclass_fields__}
        given = {"max_sequence_length": 2048, **given, "name": name}
        width, heads = config["hidden_dim"], config["num_query_heads"]
        given["head_dim"] = config.get("head_dim") or width // heads
        given["intermediate_dim"] = config.get("intermediate_dim") or 4 * width
        if given.get("mlp_bias") is None:
            given["mlp_bias"] = given.get("feed_forward") == "mlp"
        return cls(**given)

    def size(self, dimension: str) -> int:
        """Gives the length of a dimension, by its letter."""
        return {
            "V": self.vocabulary_size,
            "E": self.hidden_dim,
            "Q": self.num_query_heads * self.head_dim,
            "K": self.num_key_value_heads * self.head_dim,
            "F": self.intermediate_dim,
            "P": self.max_sequence_length,
        }[dimension]

    def pieces(self, dimension: str) -> int:
        """Gives into how many parts a dimension can be cut: heads stay whole."""
        heads = {"Q": self.num_query_heads, "K": self.num_key_value_heads}
        return heads.get(dimension) or self.size(dimension)


@dataclass(frozen=True, kw_only=True)
class Weight:
    """One variable, or the same one of every layer."""

    name: str
    dimensions: str
    shape: tuple[int, ...]
    copies: int = 1
    """Layers that have one."""
    learned: bool = True
    part: str = "block"
    """`"block"`, `"embedding"` (looked up), `"head"` (multiplied), `"lora"`."""

    @property
    def count(self) -> int:
        """Numbers in it, over all layers."""
        return self.copies * prod(self.shape)


def shape_of(preset: str) -> Shape:
    """Gives the sizes of a preset; no weight is read.

    Args:
        preset: a name of `PAPER_SHAPES`, or what `weights.presets.resolve` takes. Of a built-in
            preset not even the file is needed.

    Raises:
        InputError: there is no such preset, or what it names describes no Llama.
    """
    if config := PAPER_SHAPES.get(preset):
        return Shape.from_config(preset, config)
    if preset in PRESETS:
        return Shape.from_config(preset, PRESETS[preset].config)
    try:
        return Shape.from_config(preset, backbone_config(resolve(preset)))
    except InputError as error:
        more = f" Planned without files: {', '.join(PAPER_SHAPES)}."
        raise InputError(str(error) + more) from None


def weights_of(shape: Shape, *, lora_rank: int | None = None) -> list[Weight]:
    """Gives every weight of a causal language model.

    Args:
        shape: its sizes.
        lora_rank: rank of updates of all projections, which then learn alone
            (`training.fine_tuning.Lora`).
    """
    found = _embeddings(shape) + _blocks(shape)
    if lora_rank is None:
        return found
    frozen = [Weight(**{**vars(weight), "learned": False}) for weight in found]
    return frozen + _updates(shape, lora_rank)


def parameter_count(shape: Shape) -> int:
    """Gives the number of weights, tied embeddings counted once."""
    return sum(weight.count for weight in weights_of(shape))


def _weight(shape: Shape, name: str, dimensions: str, **rest) -> Weight:
    sizes = tuple(shape.size(letter) for letter in dimensions)
    return Weight(name=name, dimensions=dimensions, shape=sizes, **rest)


def _embeddings(shape: Shape) -> list[Weight]:
    # A tied embedding is multiplied, too; it is counted where it costs.
    part = "head" if shape.tie_word_embeddings else "embedding"
    found = [_weight(shape, "token_embedding", "VE", part=part)]
    if not shape.tie_word_embeddings:
        found.append(_weight(shape, "token_embedding/reverse", "EV", part="head"))
    if shape.positions == "learned":
        found.append(_weight(shape, "position_embedding", "PE", part="embedding"))
    return [*found, _weight(shape, "layer_norm", "E")]


def _projections(shape: Shape) -> dict[str, tuple[str, bool]]:
    attention = {name: (ends, shape.attention_bias) for name, ends in _ATTENTION.items()}
    feed_forward = _FEED_FORWARDS[shape.feed_forward]
    return attention | {name: (ends, shape.mlp_bias) for name, ends in feed_forward.items()}


def _blocks(shape: Shape) -> list[Weight]:
    copies, found = shape.num_layers, []
    for name in ("attention_norm", "feed_forward_norm"):
        found.append(_weight(shape, name, "E", copies=copies))
    for name, (ends, bias) in _projections(shape).items():
        found.append(_weight(shape, f"{name}_dense/kernel", ends, copies=copies))
        if bias:
            found.append(_weight(shape, f"{name}_dense/bias", ends[1], copies=copies))
    if shape.learned_temperature:
        found.append(_weight(shape, "log_temperature", "", copies=copies))
    return found


def _updates(shape: Shape, rank: int) -> list[Weight]:
    found = []
    for name, ((into, out), _) in _projections(shape).items():
        for letter, ends, sizes in (
            ("a", into + "R", (shape.size(into), rank)),
            ("b", "R" + out, (rank, shape.size(out))),
        ):
            found.append(
                Weight(
                    name=f"{name}_dense/lora_kernel_{letter}",
                    dimensions=ends,
                    shape=sizes,
                    copies=shape.num_layers,
                    part="lora",
                )
            )
    return found
