"""The product with a matrix that attention and feed-forward layers are made of."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="llama_keras")
class Projection(keras.layers.Dense):
    """`keras.layers.Dense` whose LoRA update (arXiv 2106.09685) meets the inputs, not the kernel.

    `x W + s (x A) B` in place of `x (W + s A B)`: the same up to rounding, without a copy of the
    kernel in each call, and without the gradient of the whole kernel in each step, which is a third
    of the work. Where the kernel is quantized Keras does so itself.

    Example:
    ```python
    layer = Projection(64)
    layer.build((None, 32))
    layer.enable_lora(8)
    ```
    """

    def call(self, inputs, training=None):
        """Gives `(…, units)` for inputs `(…, width)`."""
        if not self.lora_enabled:
            return super().call(inputs, training=training)
        kernel, a, b = (
            ops.cast(weight, self.compute_dtype)
            for weight in (self._kernel, self.lora_kernel_a, self.lora_kernel_b)
        )
        few = ops.matmul(inputs, a) * (self.lora_alpha / self.lora_rank)
        hidden = ops.matmul(inputs, kernel) + ops.matmul(few, b)
        if self.bias is not None:
            hidden = ops.add(hidden, self.bias)
        return hidden if self.activation is None else self.activation(hidden)

    def quantize(self, mode=None, type_check=True, config=None):
        """Quantizes the kernel as Keras does, which takes no subclasses unless it is told to."""
        super().quantize(mode, type_check=False, config=config)
