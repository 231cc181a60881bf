"""Evaluation: a suite (data, labels, metrics) run against a model, an export or a server."""

import importlib
from typing import TYPE_CHECKING, Any

if __name__ != "llama_keras.eval":
    raise ImportError("eval/ is a part of llama_keras: write `from llama_keras import eval`")

if TYPE_CHECKING:
    from llama_keras.eval.harness import Result, evaluate
    from llama_keras.eval.suite import Suite, load_suite
    from llama_keras.eval.targets import open_target

__all__ = ["Result", "Suite", "evaluate", "load_suite", "open_target"]

_FILES = {
    "Result": "harness",
    "Suite": "suite",
    "evaluate": "harness",
    "load_suite": "suite",
    "open_target": "targets",
}


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {__all__}")
    return getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
