"""What each task answers to when it is served: the table of what makes its signatures."""

from collections.abc import Callable
from importlib import import_module

from llama_keras.serving.signature_parts import Signatures


def _of(head: str) -> Callable[..., Signatures]:
    """Gives the maker of signatures_HEAD.py, which is loaded by its first use."""

    def make(model, **settings) -> Signatures:
        module = import_module(f"llama_keras.serving.signatures_{head}")
        return getattr(module, f"{head}_signatures")(model, **settings)

    return make


# task class name -> what makes its signatures
SIGNATURES: dict[str, Callable[..., Signatures]] = {
    "CausalLM": _of("causal_lm"),
    "Denoiser": _of("denoiser"),
    "Embedder": _of("embedder"),
    "MaskedLM": _of("masked_lm"),
    "QuestionAnswerer": _of("question_answerer"),
    "TextClassifier": _of("text_classifier"),
    "TokenClassifier": _of("token_classifier"),
}
# task class name -> settings of `export` that its maker takes; others take none
EXPORT_SETTINGS = {
    "CausalLM": ("max_new_tokens", "temperature", "top_k", "top_p", "seed", "stop", "jit_compile"),
    "Denoiser": ("max_new_tokens",),
    "MaskedLM": ("top_k",),
}
