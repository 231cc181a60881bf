"""How models are trained: exact steps under `tf.distribute`, fine-tuning strategies."""

from typing import TYPE_CHECKING

from llama_keras.lazy import lazy_names

if TYPE_CHECKING:
    from llama_keras.training.exact_trainer import ExactTrainer

_HOMES = {
    "ExactTrainer": "exact_trainer",
}
__all__ = ["ExactTrainer"]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
