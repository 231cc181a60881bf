"""Position-wise feed-forward networks.

Axes: B batch, T tokens, E model width, F intermediate width.
"""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="llama_keras")
class SwiGLU(keras.layers.Layer):
    """Gated feed-forward network: `down(silu(gate(x)) * up(x))`.

    Source: GLU Variants Improve Transformer, arXiv 2002.05202, equation 6.

    Args:
        intermediate_dim: F.
        use_bias: whether the three projections have biases (`mlp_bias` of checkpoints).

    Call arguments:
        hidden: `(B, T, E)`; the result has the same shape.

    Example:
    ```python
    hidden = SwiGLU(intermediate_dim=128)(keras.random.normal((2, 8, 64)))
    ```
    """

    def __init__(
        self,
        *,
        intermediate_dim: int,
        use_bias: bool = False,
        kernel_initializer: str = "glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.intermediate_dim = intermediate_dim
        self.use_bias = use_bias
        self.kernel_initializer = kernel_initializer

    def build(self, hidden_shape):
        """Makes the three projections for inputs `(B, T, E)`."""
        width = hidden_shape[-1]

        def dense(units, name, width):
            layer = keras.layers.Dense(
                units,
                use_bias=self.use_bias,
                kernel_initializer=self.kernel_initializer,
                dtype=self.dtype_policy,
                name=name,
            )
            layer.build((None, None, width))
            return layer

        self.gate_dense = dense(self.intermediate_dim, "gate_dense", width)
        self.up_dense = dense(self.intermediate_dim, "up_dense", width)
        self.down_dense = dense(width, "down_dense", self.intermediate_dim)
        self.built = True

    def call(self, hidden):
        """Applies the network; see the class."""
        return self.down_dense(ops.silu(self.gate_dense(hidden)) * self.up_dense(hidden))

    def compute_output_shape(self, hidden_shape):
        """Gives the shape of the input back."""
        return hidden_shape

    def get_config(self):
        """Gives the arguments of the constructor."""
        return {
            **super().get_config(),
            "intermediate_dim": self.intermediate_dim,
            "use_bias": self.use_bias,
            "kernel_initializer": self.kernel_initializer,
        }
