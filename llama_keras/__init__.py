"""Llama in Keras, from raw text to a served SavedModel.

Submodules load when they are first used, so that `import llama_keras` costs milliseconds and
never pulls in TensorFlow by itself.
"""

from typing import TYPE_CHECKING

from llama_keras.lazy import lazy_names

if TYPE_CHECKING:
    from llama_keras import (
        data,
        eval,
        layers,
        models,
        objectives,
        serving,
        tasks,
        text,
        training,
        weights,
    )

__version__ = "0.1.0"

__all__ = [
    "data",
    "eval",
    "layers",
    "models",
    "objectives",
    "serving",
    "tasks",
    "text",
    "training",
    "weights",
]

__getattr__, __dir__ = lazy_names(__name__, {}, modules=tuple(__all__))
