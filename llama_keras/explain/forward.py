"""A backbone run layer by layer, with what each part gives.

Axes: B batch (one row), T tokens, H query heads, K key-value heads, D head size, E model width.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from llama_keras.explain.records import Attention, Layer, Vectors
from llama_keras.layers.attention_kernels import KERNELS, check_temperature, get_kernel


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
        temperature: α of the Gaussian kernel that is shown; by default the backbone's own, or 1.
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
    for name, kind in KERNELS.items():
        kernel = own if type(own) is kind else get_kernel(name, dtype=own.dtype_policy)
        if name == "gaussian" and temperature is not None:
            settings = {"temperature": check_temperature(temperature)}
            if type(own) is kind:
                settings["normalize"] = own.normalize
            kernel = get_kernel({"name": name, **settings}, dtype=own.dtype_policy)
        weights = attention.attention_weights(normed, **context, attention_kernel=kernel)
        found.append(Attention(name, _temperature(kernel), type(own) is kind, _array(weights)[0]))
    return found


def _temperature(kernel) -> float | None:
    found = getattr(kernel, "current_temperature", None)
    return None if found is None else float(found())


def _vectors(x: Any) -> Vectors:
    return Vectors(_array(x)[0])


def _array(x: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(ops.cast(x, "float32")))
