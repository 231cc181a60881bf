"""A backbone run layer by layer, with what each part gives.

Axes: B batch (one row), T tokens, H query heads, K key-value heads, D head size, E model width.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from llama_keras.explain.records import Attention, Layer, Vectors
from llama_keras.layers.attention_kernels import check_temperature, get_kernel, kernel_config

# The kernels that are shown; α is added to the Gaussian ones.
_SHOWN = (
    {"name": "dot_product"},
    {"name": "gaussian", "normalize": True},
    {"name": "gaussian", "normalize": False},
)


@dataclass(frozen=True)
class Forward:
    """What a backbone makes of one row of token ids."""

    embeddings: Vectors
    layers: list[Layer]
    contextual: Vectors


def run_forward(
    backbone, token_ids: list[int], *, numbers: list[int], temperature: float | None = None
) -> Forward:
    """Runs a backbone on one row and keeps the values of some of its blocks.

    Args:
        backbone: a `LlamaBackbone`; with `attention_mask="prefix"` the whole row is the prefix.
        token_ids: T ids.
        numbers: the blocks to keep, counted from 1.
        temperature: α of the Gaussian kernels that are shown; by default the backbone's own, or 1.
            It changes no vector: a backbone of another α is shown with its own kernel, too.
    """
    ids = ops.convert_to_tensor([token_ids], dtype="int32")
    inputs = {"token_ids": ids}
    if backbone.config.attention_mask == "prefix":
        inputs["prefix_mask"] = ops.ones_like(ids)
    words = backbone.token_embedding(ids)
    hidden, context = backbone.start(inputs)
    kept = []
    for number, block in enumerate(backbone.transformer_layers, start=1):
        normed = block.attention_norm(hidden)
        attended = hidden + block.attention(normed, **context)
        fed = block.feed_forward(block.feed_forward_norm(attended))
        hidden = attended + fed
        if number in numbers:
            weights = _attention(block.attention, normed, context, temperature=temperature)
            kept.append(Layer(number, weights, _vectors(fed), _vectors(hidden)))
    return Forward(_vectors(words), kept, _vectors(backbone.layer_norm(hidden)))


def _attention(attention, normed, context, *, temperature: float | None) -> list[Attention]:
    """Gives the weights of the same queries and keys by each kernel."""
    own, found = attention.attention_kernel, []
    for kernel in _kernels(own, temperature):
        weights = attention.attention_weights(normed, **context, attention_kernel=kernel)
        name, normalized, alpha = _settings(kernel)
        found.append(Attention(name, alpha, normalized, kernel is own, _array(weights)[0]))
    return found


def _kernels(own, temperature: float | None) -> list[Any]:
    """Gives the kernels of `_SHOWN`; a layer's own is in the place of its like, or at the end."""
    alpha = _settings(own)[2] or 1.0 if temperature is None else check_temperature(temperature)
    found = []
    for row in _SHOWN:
        settings = {"temperature": alpha} if row["name"] == "gaussian" else {}
        kernel = get_kernel({**row, **settings}, dtype=own.dtype_policy)
        found.append(own if _settings(kernel) == _settings(own) else kernel)
    return found if own in found else [*found, own]


def _settings(kernel) -> tuple[str, bool, float | None]:
    """Gives a kernel's name, whether its weights add up to one, and its α."""
    alpha = getattr(kernel, "current_temperature", None)
    name, normalized = kernel_config(kernel)["name"], getattr(kernel, "normalize", True)
    return name, normalized, None if alpha is None else float(alpha())


def _vectors(x: Any) -> Vectors:
    return Vectors(_array(x)[0])


def _array(x: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(ops.cast(x, "float32")))
