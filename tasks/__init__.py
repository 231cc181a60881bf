"""Tasks: one class each that takes raw text to answers (`llama_keras.tasks.TextClassifier`, …)."""

from typing import TYPE_CHECKING

from llama_keras.lazy import lazy_names

if __name__ != "llama_keras.tasks":
    raise ImportError("tasks/ is a part of llama_keras: write `from llama_keras import tasks`")

if TYPE_CHECKING:
    from llama_keras.tasks.causal_lm import CausalLM
    from llama_keras.tasks.denoiser import Denoiser
    from llama_keras.tasks.embedder import Embedder
    from llama_keras.tasks.masked_lm import MaskedLM
    from llama_keras.tasks.pretraining import Pretraining
    from llama_keras.tasks.question_answerer import QuestionAnswerer
    from llama_keras.tasks.text_classifier import TextClassifier
    from llama_keras.tasks.token_classifier import TokenClassifier

__all__ = [
    "CausalLM",
    "Denoiser",
    "Embedder",
    "MaskedLM",
    "Pretraining",
    "QuestionAnswerer",
    "TextClassifier",
    "TokenClassifier",
]

# Class name -> file; a task's file loads when the class is first asked for.
_FILES = {
    "CausalLM": "causal_lm",
    "Denoiser": "denoiser",
    "Embedder": "embedder",
    "MaskedLM": "masked_lm",
    "Pretraining": "pretraining",
    "QuestionAnswerer": "question_answerer",
    "TextClassifier": "text_classifier",
    "TokenClassifier": "token_classifier",
}

__getattr__, __dir__ = lazy_names(__name__, _FILES)
