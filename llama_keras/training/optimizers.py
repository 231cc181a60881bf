"""AdamW whose rate depends on how deep in the model a weight lies, and from when it learns.

Depths of a backbone of L blocks: 0 for embeddings, 1 … L for the blocks, L + 1 for all that comes
after (final norm, head).
"""

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
