"""What the layers should give, in NumPy loops and float64: the tests' oracle.

Axes: T tokens, H query heads, K key-value heads, D head size, E model width, V vocabulary.
"""

import math
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from llama_keras.layers import MLP, DotProduct

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="takes gradients with a tape"
)

# For `pytest.mark.filterwarnings`: warnings are errors, but for what Keras does with NumPy 2.
STRICT = ("error", "ignore:__array__ implementation doesn't accept:DeprecationWarning")


def numpy(x: Any) -> np.ndarray:
    """Gives any backend's tensor, of any dtype, as float32."""
    return np.asarray(ops.convert_to_numpy(ops.cast(x, "float32")))


def load_model(path: Any) -> Any:
    return keras.saving.load_model(path)


def weight(variable: Any) -> np.ndarray:
    return numpy(variable).astype("float64")


def dense(layer, x: np.ndarray) -> np.ndarray:
    y = x @ weight(layer.kernel)
    return y + weight(layer.bias) if layer.bias is not None else y


def rms_norm(x: np.ndarray, scale: np.ndarray, epsilon: float) -> np.ndarray:
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + epsilon) * scale


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1.0 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    grown = np.exp(x - np.max(x))
    return grown / np.sum(grown)


def frequency(pair: int, head_dim: int, wavelength: float, scaling: dict | None) -> float:
    """Gives the turn per position of one feature pair, written as in the Llama 3.1 release."""
    plain = wavelength ** (-2.0 * pair / head_dim)
    scaling = scaling or {"rope_type": "default"}
    if scaling["rope_type"] == "default":
        return plain
    if scaling["rope_type"] == "linear":
        return plain / scaling["factor"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    context, wave = scaling["original_max_position_embeddings"], 2 * math.pi / plain
    if wave < context / high:
        return plain
    if wave > context / low:
        return plain / scaling["factor"]
    smooth = (context / wave - low) / (high - low)
    return (1 - smooth) * plain / scaling["factor"] + smooth * plain


def turn(vector: np.ndarray, position: int, wavelength: float, scaling: dict | None) -> np.ndarray:
    """Turns one head's vector `(D,)`: feature pair `(i, i + D / 2)` as one complex number."""
    half = len(vector) // 2
    turned = np.empty_like(vector)
    for i in range(half):
        angle = position * frequency(i, len(vector), wavelength, scaling)
        pair = complex(vector[i], vector[i + half]) * complex(math.cos(angle), math.sin(angle))
        turned[i], turned[i + half] = pair.real, pair.imag
    return turned


def kernel_weights(kernel, query: np.ndarray, keys: list[np.ndarray]) -> np.ndarray:
    """Gives the weights of one query `(D,)` over the keys that it sees, by the formulas."""
    size = len(query)
    if isinstance(kernel, DotProduct):
        return softmax(np.array([query @ key for key in keys]) / math.sqrt(size))
    alpha = float(numpy(kernel.current_temperature()))
    logs = np.array([-np.sum((query - key) ** 2) / (size * alpha) for key in keys])
    return softmax(logs) if kernel.normalize else np.exp(logs)


def sees(length: int, *, causal: bool, prefix: int = 0) -> np.ndarray:
    """Tells who sees whom: bool `(T, T)`; the first `prefix` tokens see each other both ways."""
    rows, columns = np.mgrid[:length, :length]
    both = (rows < prefix) & (columns < prefix)
    return (columns <= rows) | both if causal else np.ones((length, length), bool)


def weights(layer, x, *, causal: bool, prefix: int = 0, wavelength=None, scaling=None):
    """Gives the attention weights within one text, `(H, T, T)`, heads repeated."""
    length, heads, kv_heads = len(x), layer.num_query_heads, layer.num_key_value_heads
    size = layer.head_dim
    query = dense(layer.query_dense, x).reshape(length, heads, size)
    key = dense(layer.key_dense, x).reshape(length, kv_heads, size)
    key = np.repeat(key, heads // kv_heads, axis=1)
    seen = sees(length, causal=causal, prefix=prefix)
    made = np.zeros((heads, length, length))
    for head in range(heads):
        for t in range(length):
            places = np.flatnonzero(seen[t])
            q, ks = query[t, head], [key[s, head] for s in places]
            if wavelength:
                q = turn(q, t, wavelength, scaling)
                ks = [turn(k, int(s), wavelength, scaling) for k, s in zip(ks, places, strict=True)]
            made[head, t, places] = kernel_weights(layer.attention_kernel, q, ks)
    return made


def attention(layer, x, **options) -> np.ndarray:
    """Attends within one text `(T, E)`; options as for `weights`."""
    length, heads, kv_heads = len(x), layer.num_query_heads, layer.num_key_value_heads
    value = dense(layer.value_dense, x).reshape(length, kv_heads, layer.head_dim)
    value = np.repeat(value, heads // kv_heads, axis=1)
    mixed = np.einsum("hts,shd->thd", weights(layer, x, **options), value)
    return dense(layer.output_dense, mixed.reshape(length, heads * layer.head_dim))


def swiglu(layer, x: np.ndarray) -> np.ndarray:
    gate, up = dense(layer.gate_dense, x), dense(layer.up_dense, x)
    return dense(layer.down_dense, silu(gate) * up)


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0.0),
    "gelu": lambda x: x * (1.0 + np.vectorize(math.erf)(x / math.sqrt(2.0))) / 2.0,
    "silu": silu,
}


def mlp(layer, x: np.ndarray) -> np.ndarray:
    return dense(layer.down_dense, ACTIVATIONS[layer.activation](dense(layer.up_dense, x)))


def block(layer, x, *, epsilon: float, **attention_options) -> np.ndarray:
    normed = rms_norm(x, weight(layer.attention_norm.scale), epsilon)
    x = x + attention(layer.attention, normed, **attention_options)
    normed = rms_norm(x, weight(layer.feed_forward_norm.scale), epsilon)
    return x + (mlp if isinstance(layer.feed_forward, MLP) else swiglu)(layer.feed_forward, normed)


def embed(model, token_ids) -> np.ndarray:
    """Gives what enters the first block: `(T, E)`."""
    x = weight(model.token_embedding.embeddings)[np.asarray(token_ids)]
    if model.config.positions == "learned":
        x = x + weight(model.position_embedding.embeddings)[: len(x)]
    return x


def attention_options(model, prefix: int = 0) -> dict[str, Any]:
    """Gives the options of `weights` for the blocks of a `LlamaBackbone`."""
    config = model.config
    return {
        "causal": config.attention_mask != "bidirectional",
        "prefix": prefix,
        "wavelength": config.rope_max_wavelength if config.positions == "rotary" else None,
        "scaling": config.rope_scaling,
    }


def backbone(model, token_ids, *, prefix: int = 0) -> np.ndarray:
    """Runs a `LlamaBackbone` over the ids of one text: `(T, E)`."""
    epsilon, options = model.config.layer_norm_epsilon, attention_options(model, prefix)
    x = embed(model, token_ids)
    for layer in model.transformer_layers:
        x = block(layer, x, epsilon=epsilon, **options)
    return rms_norm(x, weight(model.layer_norm.scale), epsilon)


def logits(model, token_ids, *, prefix: int = 0) -> np.ndarray:
    """Gives `(T, V)`; tied models reuse the embedding."""
    table = model.token_embedding
    tied = model.config.tie_word_embeddings
    head = weight(table.embeddings).T if tied else weight(table.reverse_embeddings)
    return backbone(model, token_ids, prefix=prefix) @ head
