"""Tasks: one class each that takes raw text to answers (`llama_keras.tasks.TextClassifier`, …)."""

import importlib
from typing import TYPE_CHECKING, Any

if __name__ != "llama_keras.tasks":
    raise ImportError("tasks/ is a part of llama_keras: write `from llama_keras import tasks`")

if TYPE_CHECKING:
    from llama_keras.tasks.causal_lm import CausalLM
    from llama_keras.tasks.text_classifier import TextClassifier

__all__ = ["CausalLM", "TextClassifier"]

# Class name -> file; a task's file loads when the class is first asked for.
_FILES = {"CausalLM": "causal_lm", "TextClassifier": "text_classifier"}


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {__all__}")
    return getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
