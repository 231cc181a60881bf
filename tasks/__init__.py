"""Tasks: one class each that takes raw text to answers (`llama_keras.tasks.TextClassifier`, …)."""

from typing import TYPE_CHECKING

from llama_keras.lazy import lazy_names

if __name__ != "llama_keras.tasks":
    raise ImportError("tasks/ is a part of llama_keras: write `from llama_keras import tasks`")

if TYPE_CHECKING:
    from llama_keras.tasks.causal_lm import CausalLM
    from llama_keras.tasks.text_classifier import TextClassifier

__all__ = ["CausalLM", "TextClassifier"]

# Class name -> file; a task's file loads when the class is first asked for.
_FILES = {"CausalLM": "causal_lm", "TextClassifier": "text_classifier"}

__getattr__, __dir__ = lazy_names(__name__, _FILES)
