"""The thin seam between pairs of texts, as people hand them in, and lists of Python strings.

Axes: N pairs.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from llama_keras.errors import InputError
from llama_keras.tasks.text_data import dataset_rows, label_list

EXPECTED = (
    "a tuple of two lists (firsts, seconds), a list of pairs [(first, second), …], or a dataset of "
    "((first, second), label)"
)


def is_raw_pairs(x) -> bool:
    """Says whether `x` is meant as texts, well-formed or not, rather than token features."""
    if hasattr(x, "element_spec"):
        spec = x.element_spec
        return not isinstance(spec[0] if isinstance(spec, tuple) and spec else spec, Mapping)
    if isinstance(x, np.ndarray):
        return x.dtype.kind in "USO"
    return isinstance(x, (str, list, tuple))


def are_pairs(x) -> bool:
    """Says whether `x` holds pairs of texts in a form that no list of single texts has."""
    if hasattr(x, "element_spec"):
        return _is_pair_spec(x.element_spec)
    if isinstance(x, np.ndarray):
        return x.dtype.kind in "USO" and x.ndim == 2
    if not isinstance(x, (list, tuple)) or not len(x):
        return False
    return all(isinstance(row, (list, tuple, np.ndarray)) for row in x) and all(
        isinstance(text, (str, bytes)) for text in x[0]
    )


def as_pairs_and_labels(x, y=None) -> tuple[list[tuple[str, str]], list[Any] | None]:
    """Gives pairs as tuples of two strings, and their labels.

    What stands outside decides, as in KerasHub: a tuple holds the two columns, `(firsts, seconds)`
    with N strings each (or one pair of two strings); a list or an array holds N pairs.

    Args:
        x: see above, or a finite `tf.data.Dataset` of `((first, second), label)` or
            `((first, second),)`, batched or not.
        y: N labels; None for a dataset.

    Raises:
        InputError: `x` is of another form.
    """
    if hasattr(x, "element_spec"):
        columns, y = _dataset_columns(x)
        rows = _rows_of_columns(columns)
    elif isinstance(x, tuple):
        rows = _rows_of_columns(x)
    elif isinstance(x, (list, np.ndarray)):
        rows = list(x)
    else:
        raise InputError(f"Received {_short(x)}; expected {EXPECTED}.")
    return [_pair(row, index) for index, row in enumerate(rows)], label_list(y)


def _is_pair_spec(spec) -> bool:
    parts = spec[0] if isinstance(spec, tuple) and spec else None
    return (
        isinstance(parts, tuple)
        and len(parts) == 2
        and all(getattr(part, "dtype", None) == "string" for part in parts)
    )


def _dataset_columns(dataset):
    if not _is_pair_spec(dataset.element_spec):
        raise InputError(
            f"The dataset has elements of the form {dataset.element_spec}; expected "
            "((first, second), label), or ((first, second),) without labels, of strings."
        )
    firsts, seconds, labels = [], [], []
    for (first, second), found in dataset_rows(dataset):
        firsts += first
        seconds += second
        labels += found
    return (firsts, seconds), labels or None


def _rows_of_columns(columns):
    if len(columns) != 2:
        raise InputError(f"Received a tuple of {len(columns)}; expected {EXPECTED}.")
    first, second = ([c] if isinstance(c, (str, bytes)) else c for c in columns)
    for column in (first, second):
        if not isinstance(column, (list, tuple, np.ndarray)):
            raise InputError(f"Received a tuple that holds {_short(column)}; expected {EXPECTED}.")
    if len(first) != len(second):
        raise InputError(
            f"There are {len(first)} first texts but {len(second)} second ones; a tuple holds "
            "(firsts, seconds), a list the pairs."
        )
    return list(zip(first, second, strict=True))


def _pair(row: Any, index: int) -> tuple[str, str]:
    texts = list(row) if isinstance(row, (list, tuple, np.ndarray)) else []
    try:
        texts = [text.decode("utf-8") if isinstance(text, bytes) else text for text in texts]
    except UnicodeDecodeError as error:
        raise InputError(f"Pair number {index} is not UTF-8: {error}") from error
    if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
        raise InputError(f"Pair number {index} is {_short(row)}; expected {EXPECTED}.")
    return str(texts[0]), str(texts[1])


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "…"
