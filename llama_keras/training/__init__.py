"""How models are trained: exact steps under `tf.distribute`, fine-tuning strategies."""

from typing import TYPE_CHECKING

from llama_keras.lazy import lazy_names

if TYPE_CHECKING:
    from llama_keras.training.checkpoints import Checkpoints
    from llama_keras.training.exact_trainer import ExactTrainer

_HOMES = {
    "Checkpoints": "checkpoints",
    "ExactTrainer": "exact_trainer",
}
__all__ = ["Checkpoints", "ExactTrainer"]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
