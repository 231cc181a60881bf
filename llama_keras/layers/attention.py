"""Grouped-query self-attention with rotary positions and a static key-value cache.

Axes: B batch, T tokens, S tokens looked at (or cache length), H query heads, K key-value heads,
D head size, E model width.
"""

from typing import Any

import keras
from keras import ops

from llama_keras.errors import InputError
from llama_keras.layers.attention_kernels import (
    AttentionKernel,
    by_head,
    get_kernel,
    grouped,
    kernel_config,
    mix,
)
from llama_keras.layers.dropout import Dropout
from llama_keras.layers.projection import Projection
from llama_keras.layers.rotary import apply_rotary


def write_cache(cache, new, index):
    """Gives `cache` with `new` written from slot `index` on.

    Args:
        cache: `(B, K, S, D)`.
        new: `(B, K, T, D)`.
        index: int scalar, the same slot for all rows.
    """
    if isinstance(index, int) and index == 0:
        return ops.concatenate([new, cache[:, :, ops.shape(new)[2] :]], axis=2)
    if new.shape[2] == 1:
        # One token: a select is as fast as a slice update and stays within TensorFlow's core ops.
        slots = ops.arange(ops.shape(cache)[2], dtype="int32")
        here = ops.equal(slots, index)[None, None, :, None]
        return ops.where(here, new, cache)
    return ops.slice_update(cache, (0, 0, index, 0), new)


@keras.saving.register_keras_serializable(package="llama_keras")
class LlamaAttention(keras.layers.Layer):
    """Self-attention in which groups of query heads share a key-value head.

    Source: GQA, arXiv 2305.13245; LLaMA, arXiv 2302.13971.

    Args:
        num_query_heads: H.
        num_key_value_heads: K; divides H.
        head_dim: D; by default the input's width divided by H.
        use_bias: whether the four projections have biases (`attention_bias` of checkpoints).
        dropout: share of attention weights dropped in training.
        attention_kernel: a name of `KERNELS`, a dict of it and its settings, or a kernel; see
            `get_kernel`.

    Call arguments:
        hidden: `(B, T, E)`.
        bias: optional, added to the scores, broadcast to `(B, 1, T, S)`.
        cos, sin: optional `(B, T, D)`, from `RotaryEmbedding`; without them no positions.
        cache: optional pair of `(B, K, S, D)`, keys and values so far.
        cache_index: int scalar, where the T new tokens go in the cache.

    Returns:
        `(B, T, E)`; with a cache, a pair of it and the new cache.

    Example:
    ```python
    hidden = keras.random.normal((2, 8, 64))
    hidden = LlamaAttention(num_query_heads=4, num_key_value_heads=2)(hidden)
    ```
    """

    def __init__(
        self,
        *,
        num_query_heads: int,
        num_key_value_heads: int,
        head_dim: int | None = None,
        use_bias: bool = False,
        dropout: float = 0.0,
        attention_kernel: str | dict | AttentionKernel = "dot_product",
        kernel_initializer: str = "glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if num_query_heads % num_key_value_heads:
            raise InputError(
                "num_query_heads must be a multiple of num_key_value_heads; received "
                f"{num_query_heads} and {num_key_value_heads}."
            )
        self.num_query_heads = num_query_heads
        self.num_key_value_heads = num_key_value_heads
        self.head_dim: Any = head_dim  # an integer once built
        self.use_bias = use_bias
        self.dropout = dropout
        self.attention_kernel = get_kernel(attention_kernel, dtype=self.dtype_policy)
        self.kernel_initializer = kernel_initializer

    def build(self, hidden_shape):
        """Makes the four projections for inputs `(B, T, E)`."""
        width = hidden_shape[-1]
        if self.head_dim is None:
            if width % self.num_query_heads:
                raise InputError(
                    f"The width {width} is not a multiple of num_query_heads="
                    f"{self.num_query_heads}; give head_dim."
                )
            self.head_dim = width // self.num_query_heads
        query_width = self.num_query_heads * self.head_dim
        key_width = self.num_key_value_heads * self.head_dim

        def dense(units, name, width):
            layer = Projection(
                units,
                use_bias=self.use_bias,
                kernel_initializer=self.kernel_initializer,
                dtype=self.dtype_policy,
                name=name,
            )
            layer.build((None, None, width))
            return layer

        self.query_dense = dense(query_width, "query_dense", width)
        self.key_dense = dense(key_width, "key_dense", width)
        self.value_dense = dense(key_width, "value_dense", width)
        self.output_dense = dense(width, "output_dense", query_width)
        if not self.attention_kernel.built:  # one that was given may be another layer's, too
            self.attention_kernel.build(hidden_shape)
        self.dropout_layer = Dropout(self.dropout, dtype=self.dtype_policy)
        self.built = True

    def call(
        self,
        hidden,
        bias=None,
        cos=None,
        sin=None,
        cache=None,
        cache_index=None,
        training=None,
    ):
        """Attends; see the class."""
        query, key = self._query_and_key(hidden, cos, sin)
        value = self._heads(self.value_dense(hidden), self.num_key_value_heads)
        value = ops.transpose(value, (0, 2, 1, 3))  # (B, K, T, D)
        if cache is not None:
            key = write_cache(cache[0], key, cache_index)
            value = write_cache(cache[1], value, cache_index)
        weights = self.attention_kernel.weigh(query, key, bias)
        weights = self.dropout_layer(weights, training=training)
        mixed = mix(weights, value)  # (B, T, H, D)
        width = self.num_query_heads * self.head_dim
        output = self.output_dense(ops.reshape(mixed, (*ops.shape(mixed)[:2], width)))
        return output if cache is None else (output, (key, value))

    def attention_weights(self, hidden, bias=None, cos=None, sin=None, attention_kernel=None):
        """Gives how much each token looks at each: float32 `(B, H, T, T)`.

        Args: as in a call; and a kernel to compare queries and keys by instead of the layer's own.
        """
        query, key = self._query_and_key(hidden, cos, sin)
        return by_head((attention_kernel or self.attention_kernel).weigh(query, key, bias))

    def _query_and_key(self, hidden, cos, sin):
        query = self._heads(self.query_dense(hidden), self.num_query_heads)
        key = self._heads(self.key_dense(hidden), self.num_key_value_heads)
        if cos is not None:
            query, key = apply_rotary(query, cos, sin), apply_rotary(key, cos, sin)
        query = grouped(query, num_key_value_heads=self.num_key_value_heads)
        return query, ops.transpose(key, (0, 2, 1, 3))  # (B, K, G, T, D), (B, K, T, D)

    def _heads(self, x, heads):
        return ops.reshape(x, (*ops.shape(x)[:2], heads, self.head_dim))  # (B, T, heads, D)

    def compute_output_spec(
        self, hidden, bias=None, cos=None, sin=None, cache=None, cache_index=None, training=None
    ):
        """Gives the shapes without computing them."""
        output = keras.KerasTensor(hidden.shape, dtype=self.compute_dtype)
        if cache is None:
            return output
        return output, tuple(keras.KerasTensor(x.shape, dtype=x.dtype) for x in cache)

    def get_config(self):
        """Gives the arguments of the constructor."""
        return {
            **super().get_config(),
            "num_query_heads": self.num_query_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "use_bias": self.use_bias,
            "dropout": self.dropout,
            "attention_kernel": kernel_config(self.attention_kernel),
            "kernel_initializer": self.kernel_initializer,
        }
