"""Evaluation: a suite (data, labels, metrics) run against a model, an export or a server."""

from typing import TYPE_CHECKING

from llama_keras.lazy import lazy_names

if __name__ != "llama_keras.eval":
    raise ImportError("eval/ is a part of llama_keras: write `from llama_keras import eval`")

if TYPE_CHECKING:
    from llama_keras.eval.harness import evaluate, evaluate_suites
    from llama_keras.eval.results import Result
    from llama_keras.eval.suite import Suite, load_suite
    from llama_keras.eval.targets import open_target

__all__ = ["Result", "Suite", "evaluate", "evaluate_suites", "load_suite", "open_target"]

_FILES = {
    "Result": "results",
    "Suite": "suite",
    "evaluate": "harness",
    "evaluate_suites": "harness",
    "load_suite": "suite",
    "open_target": "targets",
}

__getattr__, __dir__ = lazy_names(__name__, _FILES)
