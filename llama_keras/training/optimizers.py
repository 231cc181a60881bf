"""AdamW: the default one, and one whose rate depends on how deep in the model a weight lies.

Both are Keras's Adam in few passes over the memory: Keras writes a tensor as large as the weight
for every operation of the formula, here XLA makes one loop of it. On CPUs, where that is much of a
step of a small batch, `benchmarks/train.py` shows the difference.

Depths of a backbone of L blocks: 0 for embeddings, 1 … L for the blocks, L + 1 for all that comes
after (final norm, head, an output matrix that is not tied to the embeddings).
"""

import functools
import math
import re
from collections.abc import Sequence

import keras
import tensorflow as tf
from keras import ops

from llama_keras.training.fine_tuning import is_output

_BLOCK = re.compile(r"transformer_layer_(\d+)")
_EMBEDDING = re.compile(r"(token|position)_embedding")
_ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
_NOT_DECAYED = ["scale", "bias", "log_temperature"]


def depth_of(path: str, *, num_layers: int) -> int:
    """Gives the depth of the variable of that path."""
    if found := _BLOCK.search(path):
        return int(found[1]) + 1
    is_below = _EMBEDDING.search(path) and not is_output(path)
    return 0 if is_below else num_layers + 1


@functools.cache
def _fused_update(shape: tuple[int, ...], dtype: tf.DType):
    """Gives Adam's update of a variable of that shape, compiled to one loop that writes in place.

    A function for each shape, so that each is traced once; XLA compiles for each anyway.
    """
    read, write = tf.raw_ops.ReadVariableOp, tf.raw_ops.AssignVariableOp

    def update(handles, gradient, share, alpha, rest_1, rest_2, epsilon):
        weight, m, v = (tf.ensure_shape(read(resource=h, dtype=dtype), shape) for h in handles)
        m += (gradient - m) * rest_1
        v += (tf.square(gradient) - v) * rest_2
        weight -= weight * share + m * alpha / (tf.sqrt(v) + epsilon)
        for handle, value in zip(handles, (weight, m, v), strict=True):
            write(resource=handle, value=value)

    return tf.function(update, jit_compile=True)


class _FusedAdam(keras.optimizers.Adam):
    """Keras's Adam; under TensorFlow it clips in two passes, not four, and on CPUs updates in one.

    `amsgrad`, slices of an embedding, other devices and other backends are left to Keras.
    """

    def _update(self, gradient, variable, learning_rate, *, decay: float) -> None:
        """Changes one variable, which first loses the share `decay * learning_rate` of itself."""
        if not self._fuses(gradient, variable):
            if decay:
                share = ops.cast(decay * learning_rate, variable.dtype)
                self.assign_sub(variable, variable * share)
            super().update_step(gradient, variable, learning_rate)
            return
        dtype = tf.as_dtype(variable.dtype)
        # In 16 bits 0.999 would be 1.
        wide = dtype if dtype.size > 2 else tf.float32
        rate, step = tf.cast(learning_rate, wide), tf.cast(self.iterations + 1, wide)
        beta_1, beta_2 = float(self.beta_1), float(self.beta_2)
        left_1, left_2 = (1 - tf.pow(tf.constant(beta, wide), step) for beta in (beta_1, beta_2))
        constants = (tf.constant(float(x), wide) for x in (1 - beta_1, 1 - beta_2, self.epsilon))
        scalars = (float(decay) * rate, rate * tf.sqrt(left_2) / left_1, *constants)
        # XLA takes variables of the device that it runs on.
        with tf.device(variable.device):
            _fused_update(tuple(variable.shape), dtype)(
                [v.handle for v in (variable, *self._moments(variable))],
                tf.cast(gradient, dtype),
                *(tf.cast(x, dtype) for x in scalars),
            )

    def _moments(self, variable):
        index = self._get_variable_index(variable)
        return self._momentums[index].value, self._velocities[index].value

    def _fuses(self, gradient, variable) -> bool:
        if self.amsgrad or not _ON_TENSORFLOW or isinstance(gradient, tf.IndexedSlices):
            return False
        # Keras makes moments on the default device, wherever the weight lies. What XLA wins on
        # devices of other kinds is not measured, and it may not be installed in full there.
        devices = {v.device for v in (variable, *self._moments(variable))}
        return len(devices) == 1 and ":CPU:" in devices.pop()

    def _clip_gradients(self, grads):
        limit = self.global_clipnorm or 0.0
        slices = any(isinstance(g, tf.IndexedSlices) for g in grads)
        if self.clipnorm or limit <= 0 or slices or not _ON_TENSORFLOW:
            return super()._clip_gradients(grads)
        halves = [tf.nn.l2_loss(tf.cast(g, tf.float32)) for g in grads if g is not None]
        norm = tf.sqrt(2.0 * tf.add_n(halves))
        # What is no number is to be seen, as in Keras: no scale of it is finite.
        scale = limit / tf.maximum(norm, limit) + (norm - norm)
        return [None if g is None else g * tf.cast(scale, g.dtype) for g in grads]


@keras.saving.register_keras_serializable(package="llama_keras")
class AdamW(_FusedAdam, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` (arXiv 1711.05101) in less than half the time on CPUs.

    Arguments and variables are Keras's own; so are the weights, to float error. On other devices
    and under JAX it is Keras's own in all; under torch take Keras's, which updates all weights at
    once. A model that was compiled with it and saved wants this class imported before
    `keras.models.load_model`, as any that Keras does not have.

    Example:
    ```python
    import keras
    from llama_keras.training import AdamW

    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    model.compile(AdamW(1e-4, weight_decay=0.01, global_clipnorm=1.0), loss="mse")
    ```
    """

    def update_step(self, gradient, variable, learning_rate):
        """Changes one variable by its gradient; see `keras.optimizers.Optimizer.update_step`."""
        decay = (self.weight_decay or 0.0) if self._use_weight_decay(variable) else 0.0
        self._update(gradient, variable, learning_rate, decay=decay)

    def _apply_weight_decay(self, variables):
        """Does nothing: each weight decays where it is updated."""


@keras.saving.register_keras_serializable(package="llama_keras")
class DepthwiseAdamW(_FusedAdam):
    """AdamW (arXiv 1711.05101) with a share of the learning rate for each depth.

    A weight whose turn has not come keeps its value, while its moments are collected already. All
    follows from the step alone, so a run that is resumed goes on as it would have.

    Args:
        learning_rate: a number or a schedule.
        shares: L + 2 factors of the rate, by depth.
        starts: L + 2 steps, by depth, from which weights learn; by default all from the first.
        decay: decoupled weight decay, with the same share; norms, biases and learned temperatures
            have none.
        **kwargs: of `keras.optimizers.Adam`.
    """

    def __init__(
        self,
        learning_rate=1e-3,
        *,
        shares: Sequence[float],
        starts: Sequence[int] | None = None,
        decay: float = 0.01,
        **kwargs,
    ):
        super().__init__(learning_rate, **kwargs)
        self.shares = list(shares)
        self.starts = [0] * len(self.shares) if starts is None else list(starts)
        self.decay = decay

    def build(self, variables):
        """Makes the moments, and notes how deep each variable lies."""
        super().build(variables)
        num_layers = len(self.shares) - 2
        self._places = [depth_of(v.path, num_layers=num_layers) for v in variables]
        kept = re.compile("|".join(_NOT_DECAYED))
        self._decays = [self.decay and not kept.search(v.name) for v in variables]

    def update_step(self, gradient, variable, learning_rate):
        """Changes one variable by its gradient."""
        index = self._get_variable_index(variable)
        depth = self._places[index]
        rate = ops.cast(learning_rate, variable.dtype) * self.shares[depth]
        if self.starts[depth] > 0:
            rate = rate * ops.cast(self.iterations >= self.starts[depth], variable.dtype)
        decay = self.decay if self._decays[index] else 0.0
        self._update(gradient, variable, rate, decay=decay)

    def get_config(self):
        """Gives the arguments of the constructor."""
        return {
            **super().get_config(),
            "shares": self.shares,
            "starts": self.starts,
            "decay": self.decay,
        }


def default_adamw(learning_rate: float, total_steps: int | None, *, depth_rates=None):
    """Gives the optimizer that tasks use unless they are told otherwise.

    Args:
        learning_rate: peak of the schedule.
        total_steps: a tenth of them warms up, then a cosine goes to zero; None keeps the rate.
        depth_rates: `fine_tuning.DepthRates`, or None for the same rate everywhere.
    """
    rate = learning_rate
    if total_steps:
        warmup = math.ceil(total_steps / 10)
        rate = keras.optimizers.schedules.CosineDecay(
            0.0,
            decay_steps=max(total_steps - warmup, 1),
            warmup_target=learning_rate,
            warmup_steps=warmup,
        )
    if depth_rates is not None:
        shares, starts = depth_rates.shares, depth_rates.starts
        return DepthwiseAdamW(rate, shares=shares, starts=starts, global_clipnorm=1.0)
    optimizer = AdamW(rate, weight_decay=0.01, global_clipnorm=1.0)
    optimizer.exclude_from_weight_decay(var_names=_NOT_DECAYED)
    return optimizer
