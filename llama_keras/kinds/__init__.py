"""What a recipe's `task` stands for: how its data are read, its model built and measured."""

from importlib import import_module

from llama_keras.errors import InputError
from llama_keras.kinds.kind import TaskKind

# Each module has a `KIND`.
_MODULES = {
    "causal_lm": "causal_lm",
    "embedding": "embedding",
    "question_answering": "question_answering",
    "text_classification": "text_classification",
    "token_classification": "token_classification",
}


def get_kind(task: str) -> TaskKind:
    """Gives the kind of a recipe's `task`.

    Raises:
        InputError: there is none of that name.
    """
    if task not in _MODULES:
        raise InputError(f"task={task!r} is not known; expected one of {list(_MODULES)}.")
    return import_module(f"{__name__}.{_MODULES[task]}").KIND
