"""The tasks of suites: one module each, loaded when a suite needs it."""

import importlib
from collections.abc import Sequence
from typing import Any

from llama_keras.errors import InputError

# Task -> its module here, whose KIND is an `EvalKind`.
_MODULES = {
    "text_classification": "text_classification",
    "token_classification": "token_classification",
    "question_answering": "question_answering",
    "multiple_choice": "multiple_choice",
    "cloze": "cloze",
    "perplexity": "perplexity",
    "generation": "generation",
    "retrieval": "retrieval",
}
# What each task can compute, repeated so that reading a suite loads nothing heavy; a test compares.
METRIC_NAMES: dict[str, tuple[str, ...]] = {
    "text_classification": (
        "accuracy",
        "f1",
        "micro_f1",
        "mcc",
        "ece",
        "subset_accuracy",
    ),
    "token_classification": ("precision", "recall", "f1"),
    "question_answering": ("exact_match", "f1", "has_answer_f1", "no_answer_accuracy"),
    "multiple_choice": ("acc", "acc_norm", "acc_bytes", "choice_perplexity"),
    "cloze": ("acc", "perplexity"),
    "perplexity": ("word_perplexity", "byte_perplexity", "bits_per_byte", "token_perplexity"),
    "generation": ("exact_match", "bleu", "chrf"),
    "retrieval": ("recall@1", "recall@10", "mrr"),
}


def get_kind(task: str):
    """Gives the `EvalKind` of a suite's task."""
    return importlib.import_module(f"{__name__}.{_MODULES[task]}").KIND


def check_metrics(suite: Any) -> None:
    """Raises `InputError`, with the nearest names, where a suite names a metric it cannot have."""
    known: Sequence[str] = METRIC_NAMES[suite.task]
    for name in suite.metrics:
        if name not in known:
            import difflib

            close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f"did you mean {close[0]}? " if close else ""
            raise InputError(
                f"Suite {suite.name}: there is no metric {name!r} for {suite.task}; {hint}It has "
                f"{list(known)}."
            )
