"""The one table of weight names: ours, Hugging Face's, GGUF's, and what lies between them.

Letters: H query heads, K key-value heads, D head size, E model width, F feed-forward width.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from llama_keras.errors import InputError


@dataclass(frozen=True)
class WeightName:
    """One weight under its three names."""

    path: str
    """Attributes from the backbone on, e.g. "transformer_layers.0.attention.key_dense.kernel"."""
    hugging_face: str
    gguf: str
    transposed: bool = False
    """Checkpoints hold (out, in), our kernels (in, out)."""
    rotary_heads: str | None = None
    """Config field that counts the heads of rows which GGUF reorders for its rotary."""


_KERNEL, _BIAS = ("kernel", "weight"), ("bias", "bias")
_ONCE = (
    WeightName("token_embedding.embeddings", "model.embed_tokens.weight", "token_embd.weight"),
    WeightName("layer_norm.scale", "model.norm.weight", "output_norm.weight"),
)
_POSITIONS = WeightName(
    "position_embedding.embeddings", "model.embed_positions.weight", "position_embd.weight"
)
_UNTIED = WeightName(
    "token_embedding.reverse_embeddings", "lm_head.weight", "output.weight", transposed=True
)
# In each layer: our attribute, Hugging Face's, GGUF's.
_NORMS = (
    ("attention_norm", "input_layernorm", "attn_norm"),
    ("feed_forward_norm", "post_attention_layernorm", "ffn_norm"),
)
_ATTENTION = (
    ("attention.query_dense", "self_attn.q_proj", "attn_q", "num_query_heads"),
    ("attention.key_dense", "self_attn.k_proj", "attn_k", "num_key_value_heads"),
    ("attention.value_dense", "self_attn.v_proj", "attn_v", None),
    ("attention.output_dense", "self_attn.o_proj", "attn_output", None),
)
_FEED_FORWARD = (
    ("feed_forward.gate_dense", "mlp.gate_proj", "ffn_gate", None),
    ("feed_forward.up_dense", "mlp.up_proj", "ffn_up", None),
    ("feed_forward.down_dense", "mlp.down_proj", "ffn_down", None),
)
_NETWORKS = {"swiglu": _FEED_FORWARD, "mlp": _FEED_FORWARD[1:]}  # an MLP has no gate
_TEMPERATURE = "attention.attention_kernel.log_temperature", "self_attn.log_temperature"


def weight_names(config: Any) -> list[WeightName]:
    """The weights of a backbone, each once.

    Args:
        config: A `LlamaConfig`, or anything with its attributes.

    Returns:
        One row a variable, the embedding first and then layer by layer.
    """
    names = list(_ONCE)
    if not config.tie_word_embeddings:
        names.append(_UNTIED)
    if getattr(config, "positions", "rotary") == "learned":
        names.append(_POSITIONS)
    for index in range(config.num_layers):
        names.extend(_layer(index, config))
    return names


def _layer(index: int, config: Any) -> Iterator[WeightName]:
    ours, theirs, gguf = f"transformer_layers.{index}", f"model.layers.{index}", f"blk.{index}"
    for a, b, c in _NORMS:
        yield WeightName(f"{ours}.{a}.scale", f"{theirs}.{b}.weight", f"{gguf}.{c}.weight")
    if getattr(config, "learned_temperature", False):
        a, b = _TEMPERATURE
        yield WeightName(f"{ours}.{a}", f"{theirs}.{b}", f"{gguf}.attn_log_temperature")
    network = _NETWORKS[getattr(config, "feed_forward", "swiglu")]
    for rows, bias in ((_ATTENTION, config.attention_bias), (network, config.mlp_bias)):
        for a, b, c, heads in rows:
            for our_part, part in (_KERNEL, _BIAS) if bias else (_KERNEL,):
                yield WeightName(
                    path=f"{ours}.{a}.{our_part}",
                    hugging_face=f"{theirs}.{b}.{part}",
                    gguf=f"{gguf}.{c}.{part}",
                    transposed=part == "weight",
                    rotary_heads=heads,
                )


def variable(backbone: Any, path: str) -> Any:
    """The variable at a path of attributes and indices.

    Args:
        backbone: A built backbone.
        path: `WeightName.path`.

    Returns:
        The Keras variable, to assign to.

    Raises:
        InputError: The layer was quantized or given LoRA, so that no plain weight is there.
    """
    found = value(backbone, path)
    if not hasattr(found, "assign"):  # Keras gives the merged tensor of a layer with LoRA
        raise InputError(
            f"'{path}' has LoRA weights beside it. Load checkpoints before `enable_lora`."
        )
    return found


def value(backbone: Any, path: str) -> Any:
    """The weight at a path as it acts: a variable, or a tensor where LoRA is merged into it.

    Args:
        backbone: A built backbone.
        path: `WeightName.path`.

    Returns:
        Something with `shape` and `dtype` that numpy can read.

    Raises:
        InputError: The layer was quantized.
    """
    found = backbone
    for part in path.split("."):
        found = found[int(part)] if part.isdigit() else getattr(found, part)
    if "int" in str(found.dtype):
        raise InputError(
            f"'{path}' was quantized to {found.dtype}. Load or write checkpoints before `quantize`."
        )
    return found


def checkpoint_shape(name: WeightName, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in a checkpoint of a variable of `shape`."""
    return tuple(shape[::-1]) if name.transposed else tuple(shape)


def from_hugging_face(name: WeightName, values: np.ndarray, config: Any) -> np.ndarray:
    """Our orientation of a tensor read from safetensors; `to_hugging_face` is the same step."""
    del config
    return values.T if name.transposed else values


def to_hugging_face(name: WeightName, values: np.ndarray) -> np.ndarray:
    """The safetensors orientation of one of our weights."""
    return values.T if name.transposed else values


def from_gguf(name: WeightName, values: np.ndarray, config: Any) -> np.ndarray:
    """Our orientation and row order of a tensor read from GGUF."""
    if name.rotary_heads:
        values = unpermute(values, num_heads=getattr(config, name.rotary_heads))
    return values.T if name.transposed else values


def unpermute(values: np.ndarray, *, num_heads: int) -> np.ndarray:
    """Query or key rows in the order of split halves, from llama.cpp's interleaved pairs.

    Args:
        values: (heads x D, E) weight or (heads x D,) bias of a GGUF file.
        num_heads: H for queries, K for keys.

    Returns:
        The same rows; row i and i + D/2 of a head now turn together, as in Hugging Face's files.
    """
    half = values.shape[0] // num_heads // 2
    pairs = values.reshape(num_heads, half, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)
