"""What the layers should give, in NumPy loops and float64: the tests' oracle.

Axes: T tokens, H query heads, K key-value heads, D head size, E model width, V vocabulary.
"""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

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


def attention(layer, x, *, causal: bool, wavelength=None, scaling=None) -> np.ndarray:
    """Attends within one text `(T, E)`, heads repeated; no positions without a wavelength."""
    length, heads, kv_heads = len(x), layer.num_query_heads, layer.num_key_value_heads
    size = layer.head_dim
    query = dense(layer.query_dense, x).reshape(length, heads, size)
    key = dense(layer.key_dense, x).reshape(length, kv_heads, size)
    value = dense(layer.value_dense, x).reshape(length, kv_heads, size)
    key = np.repeat(key, heads // kv_heads, axis=1)
    value = np.repeat(value, heads // kv_heads, axis=1)
    mixed = np.zeros((length, heads, size))
    for head in range(heads):
        for t in range(length):
            seen = range(t + 1) if causal else range(length)
            q, ks = query[t, head], [key[s, head] for s in seen]
            if wavelength:
                q = turn(q, t, wavelength, scaling)
                ks = [turn(k, s, wavelength, scaling) for k, s in zip(ks, seen, strict=True)]
            weights = softmax(np.array([q @ k for k in ks]) / math.sqrt(size))
            mixed[t, head] = sum(w * value[s, head] for w, s in zip(weights, seen, strict=True))
    return dense(layer.output_dense, mixed.reshape(length, heads * size))


def swiglu(layer, x: np.ndarray) -> np.ndarray:
    gate, up = dense(layer.gate_dense, x), dense(layer.up_dense, x)
    return dense(layer.down_dense, silu(gate) * up)


def block(layer, x, *, epsilon: float, **attention_options) -> np.ndarray:
    normed = rms_norm(x, weight(layer.attention_norm.scale), epsilon)
    x = x + attention(layer.attention, normed, **attention_options)
    normed = rms_norm(x, weight(layer.feed_forward_norm.scale), epsilon)
    return x + swiglu(layer.feed_forward, normed)


def backbone(model, token_ids) -> np.ndarray:
    """Runs a `LlamaBackbone` over the ids of one text: `(T, E)`."""
    config = model.config
    x = weight(model.token_embedding.embeddings)[np.asarray(token_ids)]
    for layer in model.transformer_layers:
        x = block(
            layer,
            x,
            epsilon=config.layer_norm_epsilon,
            causal=config.attention_mask == "causal",
            wavelength=config.rope_max_wavelength,
            scaling=config.rope_scaling,
        )
    return rms_norm(x, weight(model.layer_norm.scale), config.layer_norm_epsilon)


def logits(model, token_ids) -> np.ndarray:
    """Gives `(T, V)`; tied models reuse the embedding."""
    table = model.token_embedding
    tied = model.config.tie_word_embeddings
    head = weight(table.embeddings).T if tied else weight(table.reverse_embeddings)
    return backbone(model, token_ids) @ head
