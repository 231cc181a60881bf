"""Llama in Keras, from raw text to a served SavedModel.

Submodules load when they are first used, so that `import llama_keras` costs milliseconds and
never pulls in TensorFlow by itself.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

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


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {__all__}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
