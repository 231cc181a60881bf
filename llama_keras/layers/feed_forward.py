"""Position-wise feed-forward networks.

Axes: B batch, T tokens, E model width, F intermediate width.
"""

import keras
from keras import ops

from llama_keras.errors import InputError
from llama_keras.layers.projection import Projection

EXPANSION = 4
"""F over E of an `MLP` by default."""


def _gated(gate, up):
    return ops.silu(gate) * up


@ops.custom_gradient
def _gated_in_training(gate, up):
    """Gives `_gated` with its gradient written out: two thirds of the time of TensorFlow's on CPUs.

    TensorFlow takes the sigmoid in 16 bits, which is slow, and twice as many products. Under JAX a
    step keeps a tensor of F less; it has no forward-mode derivative then.
    """

    def gradient(coming):
        wide = keras.backend.result_type(gate.dtype, "float32")
        sigmoid = ops.cast(ops.sigmoid(ops.cast(gate, wide)), gate.dtype)
        swish = gate * sigmoid
        return coming * up * (sigmoid + swish * (1 - sigmoid)), coming * swish

    return _gated(gate, up), gradient


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
            layer = Projection(
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

    def call(self, hidden, training=None):
        """Applies the network; see the class."""
        # What is exported is not trained and holds plain operations. Keras's torch keeps all that a
        # gradient's closure names, rematerialized or not.
        written_out = training and keras.backend.backend() != "torch"
        gated = _gated_in_training if written_out else _gated
        return self.down_dense(gated(self.gate_dense(hidden), self.up_dense(hidden)))

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


@keras.saving.register_keras_serializable(package="llama_keras")
class MLP(keras.layers.Layer):
    """The article's feed-forward network: `down(activation(up(x)))`, d' to 4 d' to d'.

    Source: Attention Is All You Need, arXiv 1706.03762, equation 2.

    Args:
        intermediate_dim: F; by default four times the input's width.
        activation: name of a Keras activation.
        use_bias: whether both projections have biases.

    Call arguments:
        hidden: `(B, T, E)`; the result has the same shape.

    Example:
    ```python
    hidden = MLP(activation="gelu")(keras.random.normal((2, 8, 64)))
    ```
    """

    def __init__(
        self,
        *,
        intermediate_dim: int | None = None,
        activation: str = "relu",
        use_bias: bool = True,
        kernel_initializer: str = "glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.intermediate_dim = intermediate_dim
        self.activation = check_activation(activation)
        self.use_bias = use_bias
        self.kernel_initializer = kernel_initializer

    def build(self, hidden_shape):
        """Makes the two projections for inputs `(B, T, E)`."""
        width = hidden_shape[-1]
        inner = self.intermediate_dim or EXPANSION * width

        def dense(units, name, width, activation=None):
            layer = Projection(
                units,
                activation=activation,
                use_bias=self.use_bias,
                kernel_initializer=self.kernel_initializer,
                dtype=self.dtype_policy,
                name=name,
            )
            layer.build((None, None, width))
            return layer

        self.up_dense = dense(inner, "up_dense", width, self.activation)
        self.down_dense = dense(width, "down_dense", inner)
        self.built = True

    def call(self, hidden):
        """Applies the network; see the class."""
        return self.down_dense(self.up_dense(hidden))

    def compute_output_shape(self, hidden_shape):
        """Gives the shape of the input back."""
        return hidden_shape

    def get_config(self):
        """Gives the arguments of the constructor."""
        return {
            **super().get_config(),
            "intermediate_dim": self.intermediate_dim,
            "activation": self.activation,
            "use_bias": self.use_bias,
            "kernel_initializer": self.kernel_initializer,
        }


# feed_forward -> its class
FEED_FORWARDS: dict[str, type[keras.layers.Layer]] = {"swiglu": SwiGLU, "mlp": MLP}
# Whether the projections have biases unless somebody says so.
DEFAULT_BIAS = {"swiglu": False, "mlp": True}


def check_feed_forward(name: str) -> str:
    """Gives `name` back when it is known, else raises `InputError` with the known ones."""
    if name not in FEED_FORWARDS:
        raise InputError(
            f"feed_forward={name!r} is not known; expected one of {list(FEED_FORWARDS)}."
        )
    return name


def check_activation(name: str) -> str:
    """Gives `name` back when Keras has an activation of that name, else raises `InputError`."""
    try:
        keras.activations.get(name)
    except ValueError:
        raise InputError(
            f"Keras has no activation {name!r}; try 'relu', 'gelu' or 'silu'."
        ) from None
    return name
