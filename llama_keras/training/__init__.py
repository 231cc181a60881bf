"""How models are trained: exact steps under `tf.distribute`, fine-tuning strategies."""

from typing import TYPE_CHECKING

from llama_keras.lazy import lazy_names

if TYPE_CHECKING:
    from llama_keras.training.checkpoints import Checkpoints
    from llama_keras.training.exact_trainer import ExactTrainer
    from llama_keras.training.optimizers import AdamW

_HOMES = {
    "AdamW": "optimizers",
    "Checkpoints": "checkpoints",
    "ExactTrainer": "exact_trainer",
}
__all__ = ["AdamW", "Checkpoints", "ExactTrainer"]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
