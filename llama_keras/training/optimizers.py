"""AdamW: the default one, and one whose rate depends on how deep in the model a weight lies.

Depths of a backbone of L blocks: 0 for embeddings, 1 … L for the blocks, L + 1 for all that comes
after (final norm, head).
"""

import math
import re
from collections.abc import Sequence

import keras
from keras import ops

_BLOCK = re.compile(r"transformer_layer_(\d+)")
_EMBEDDING = re.compile(r"(token|position)_embedding")
_NOT_DECAYED = re.compile(r"scale|bias")


def depth_of(path: str, *, num_layers: int) -> int:
    """Gives the depth of the variable of that path."""
    if found := _BLOCK.search(path):
        return int(found[1]) + 1
    return 0 if _EMBEDDING.search(path) else num_layers + 1


@keras.saving.register_keras_serializable(package="llama_keras")
class DepthwiseAdamW(keras.optimizers.Adam):
    """AdamW (arXiv 1711.05101) with a share of the learning rate for each depth.

    A weight whose turn has not come keeps its value, while its moments are collected already. All
    follows from the step alone, so a run that is resumed goes on as it would have.

    Args:
        learning_rate: a number or a schedule.
        shares: L + 2 factors of the rate, by depth.
        starts: L + 2 steps, by depth, from which weights learn; by default all from the first.
        decay: decoupled weight decay, with the same share; norms and biases have none.
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
        self._decays = [self.decay and not _NOT_DECAYED.search(v.name) for v in variables]

    def update_step(self, gradient, variable, learning_rate):
        """Changes one variable by its gradient."""
        index = self._get_variable_index(variable)
        depth = self._places[index]
        rate = ops.cast(learning_rate, variable.dtype) * self.shares[depth]
        if self.starts[depth] > 0:
            rate = rate * ops.cast(self.iterations >= self.starts[depth], variable.dtype)
        if self._decays[index]:
            self.assign_sub(variable, variable * ops.cast(self.decay, variable.dtype) * rate)
        super().update_step(gradient, variable, rate)

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
    optimizer = keras.optimizers.AdamW(rate, weight_decay=0.01, global_clipnorm=1.0)
    optimizer.exclude_from_weight_decay(var_names=["scale", "bias"])
    return optimizer
