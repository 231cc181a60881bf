"""A backbone run layer by layer, with what each part gives.

Axes: B batch (one row), T tokens, H query heads, K key-value heads, D head size, E model width.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from llama_keras import layers
from llama_keras.explain.records import Attention, Layer, Vectors
from llama_keras.layers.attention_kernels import KERNELS, check_temperature, get_kernel
from llama_keras.layers.rotary import apply_rotary


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
    mode = backbone.config.attention_mask
    prefix = ops.ones_like(ids) if mode == "prefix" else None
    bias = layers.AttentionBias(mode, dtype=backbone.dtype_policy)(ids, prefix_mask=prefix)
    positions = layers.TokenPositions()(ids)
    hidden = words = backbone.token_embedding(ids)
    if backbone.position_embedding is not None:
        hidden = hidden + backbone.position_embedding(positions)
    context = {"bias": bias}
    if backbone.rotary is not None:
        context["cos"], context["sin"] = backbone.rotary(positions)
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
    query = _heads(attention.query_dense(normed), attention.num_query_heads)
    key = _heads(attention.key_dense(normed), attention.num_key_value_heads)
    if "cos" in context:
        turns = context["cos"], context["sin"]
        query, key = apply_rotary(query, *turns), apply_rotary(key, *turns)
    mask = ops.broadcast_to(context["bias"] >= 0, (1, 1, query.shape[1], key.shape[1]))
    own, found = attention.attention_kernel, []
    for name, kind in KERNELS.items():
        kernel = own if type(own) is kind else get_kernel(name, dtype=own.dtype_policy)
        if name == "gaussian" and temperature is not None:
            settings = {"temperature": check_temperature(temperature)}
            if type(own) is kind:
                settings["normalize"] = own.normalize
            kernel = get_kernel({"name": name, **settings}, dtype=own.dtype_policy)
        weights = _array(kernel.attention_weights(query, key, mask))[0]
        found.append(Attention(name, _temperature(kernel), type(own) is kind, weights))
    return found


def _heads(x: Any, heads: int):
    return ops.reshape(x, (1, x.shape[1], heads, -1))  # (B, T, heads, D)


def _temperature(kernel) -> float | None:
    found = getattr(kernel, "current_temperature", None)
    return None if found is None else float(found())


def _vectors(x: Any) -> Vectors:
    return Vectors(_array(x)[0])


def _array(x: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(ops.cast(x, "float32")))
