"""One layer of a Llama: attention and feed-forward network, each behind a norm and a shortcut.

Axes: B batch, T tokens, S cache length, K key-value heads, D head size, E model width.
"""

import functools

import keras

from llama_keras.errors import InputError
from llama_keras.layers.attention import LlamaAttention
from llama_keras.layers.attention_kernels import AttentionKernel, kernel_config
from llama_keras.layers.dropout import Dropout
from llama_keras.layers.feed_forward import DEFAULT_BIAS, FEED_FORWARDS, check_feed_forward


@keras.saving.register_keras_serializable(package="llama_keras")
class TransformerBlock(keras.layers.Layer):
    """Pre-norm transformer layer of LLaMA (arXiv 2302.13971, section 2.2).

    Args:
        num_query_heads, num_key_value_heads, head_dim: see `LlamaAttention`.
        intermediate_dim: see `SwiGLU`, which needs it, and `MLP`, which does not.
        layer_norm_epsilon: epsilon of both RMS norms.
        attention_bias: whether the attention projections have biases.
        mlp_bias: whether those of the feed-forward network have; by default only an `MLP`'s.
        attention_kernel: see `LlamaAttention`.
        feed_forward: `"swiglu"` or `"mlp"`.
        mlp_activation: see `MLP`.
        dropout: share of attention weights, and of each branch's output, dropped in training.
        kernel_initializer: for all projections.

    Call arguments and result: as `LlamaAttention`.

    Example:
    ```python
    block = TransformerBlock(num_query_heads=4, num_key_value_heads=2, intermediate_dim=128)
    hidden = block(keras.random.normal((2, 8, 64)))
    ```
    """

    def __init__(
        self,
        *,
        num_query_heads: int,
        num_key_value_heads: int,
        intermediate_dim: int | None = None,
        head_dim: int | None = None,
        layer_norm_epsilon: float = 1e-5,
        attention_bias: bool = False,
        mlp_bias: bool | None = None,
        attention_kernel: str | dict | AttentionKernel = "dot_product",
        feed_forward: str = "swiglu",
        mlp_activation: str = "relu",
        dropout: float = 0.0,
        kernel_initializer: str = "glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_feed_forward(feed_forward)
        if feed_forward == "swiglu" and intermediate_dim is None:
            raise InputError("feed_forward='swiglu' needs intermediate_dim, the width inside it.")
        if mlp_bias is None:
            mlp_bias = DEFAULT_BIAS[feed_forward]
        self._arguments = {
            "num_query_heads": num_query_heads,
            "num_key_value_heads": num_key_value_heads,
            "intermediate_dim": intermediate_dim,
            "head_dim": head_dim,
            "layer_norm_epsilon": layer_norm_epsilon,
            "attention_bias": attention_bias,
            "mlp_bias": mlp_bias,
            "feed_forward": feed_forward,
            "mlp_activation": mlp_activation,
            "dropout": dropout,
            "kernel_initializer": kernel_initializer,
        }
        policy = self.dtype_policy
        self.attention_norm = keras.layers.RMSNormalization(
            epsilon=layer_norm_epsilon, dtype=policy, name="attention_norm"
        )
        self.attention = LlamaAttention(
            num_query_heads=num_query_heads,
            num_key_value_heads=num_key_value_heads,
            head_dim=head_dim,
            use_bias=attention_bias,
            dropout=dropout,
            attention_kernel=attention_kernel,
            kernel_initializer=kernel_initializer,
            dtype=policy,
            name="attention",
        )
        self.feed_forward_norm = keras.layers.RMSNormalization(
            epsilon=layer_norm_epsilon, dtype=policy, name="feed_forward_norm"
        )
        options = {"activation": mlp_activation} if feed_forward == "mlp" else {}
        self.feed_forward = FEED_FORWARDS[feed_forward](
            intermediate_dim=intermediate_dim,
            use_bias=mlp_bias,
            kernel_initializer=kernel_initializer,
            dtype=policy,
            name="feed_forward",
            **options,
        )
        self.dropout_layer = Dropout(dropout, dtype=policy)

    def build(self, hidden_shape):
        """Makes the weights for inputs `(B, T, E)`."""
        for layer in (
            self.attention_norm,
            self.attention,
            self.feed_forward_norm,
            self.feed_forward,
        ):
            layer.build(hidden_shape)
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
        """Applies the layer; see the class."""
        attended = self.attention(
            self.attention_norm(hidden),
            bias=bias,
            cos=cos,
            sin=sin,
            cache=cache,
            cache_index=cache_index,
            training=training,
        )
        if cache is not None:
            attended, cache = attended
        hidden = hidden + self.dropout_layer(attended, training=training)
        fed = self.feed_forward(self.feed_forward_norm(hidden), training=training)
        hidden = hidden + self.dropout_layer(fed, training=training)
        return hidden if cache is None else (hidden, cache)

    def rematerialized_call(self, layer_call, *args, **kwargs):
        """Lets `keras.RematScope` see `hidden` alone, in training alone.

        JAX would trace `training`, on which Python branches; TensorFlow takes no keywords.
        """
        if not kwargs.get("training"):  # nothing is kept, so nothing need be computed anew
            return layer_call
        remade = super().rematerialized_call

        def call(hidden, **rest):
            return remade(functools.partial(layer_call, **rest), hidden)(hidden)

        return call

    def compute_output_spec(self, hidden, bias=None, cos=None, sin=None, cache=None, **kwargs):
        """Gives the shapes without computing them."""
        return self.attention.compute_output_spec(hidden, cache=cache)

    def get_config(self):
        """Gives the arguments of the constructor."""
        kernel = kernel_config(self.attention.attention_kernel)
        return {**super().get_config(), **self._arguments, "attention_kernel": kernel}
