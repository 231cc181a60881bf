"""The thin seam between texts that belong together, as people hand them in, and lists of strings.

Axes: N examples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from llama_keras.errors import InputError
from llama_keras.tasks.text_data import as_texts_and_labels, is_raw_text
from llama_keras.text.offsets import clean_text

COLUMNS = ("anchor", "positive", "negative")
_EXPECTED = (
    '(anchor, positive) or (anchor, positive, negative), or {"anchor": …, "positive": …[, '
    '"negative": …]}'
)


@dataclass(frozen=True)
class Views:
    """N examples of texts that belong together.

    Attributes:
        columns: one list of N texts (single texts), two (anchors, positives) or three (negatives).
        labels: N labels of single texts, of which equal ones belong together; or None.
    """

    columns: list[list[str]]
    labels: list[Any] | None = None


def is_raw_views(x) -> bool:
    """Says whether `x` holds texts, pairs or triples, not token features."""
    if isinstance(x, str) or is_raw_text(x):
        return True
    if hasattr(x, "element_spec"):
        return isinstance(x.element_spec, dict) and COLUMNS[0] in x.element_spec
    # Token features are a dict, so every list is meant as examples: a wrong one gets our error.
    return isinstance(x, (list, tuple))


def as_views(x, y=None) -> Views:
    """Gives what `is_raw_views` accepts as lists of strings.

    Args:
        x: pairs, triples or dicts of them, single texts, or a finite, unbatched
            `tf.data.Dataset` of one of these. In a dataset two strings are a pair, and a string
            and a number a text and its label.
        y: labels of single texts; None otherwise.

    Raises:
        InputError: an example is not of the form of the first, or a text is empty.
    """
    rows = _rows(x)
    if rows is None:
        columns, labels = _single(x, y)
    elif y is not None:
        raise InputError("Pairs have no labels: leave y out, or give single texts with labels.")
    else:
        columns, labels = _columns(rows), None
    for name, column in zip(COLUMNS, columns, strict=False):
        if empty := [index for index, text in enumerate(column) if not text.strip()]:
            raise InputError(
                f"{len(empty)} of {len(column)} examples have an empty {name}, the first is number "
                f"{empty[0]}; leave them out: an empty text has nothing to learn from."
            )
    return Views([[clean_text(text) for text in column] for column in columns], labels)


def as_texts(x) -> list[str]:
    """Gives single texts, in any form that `is_raw_views` accepts, as a list of strings.

    Raises:
        InputError: `x` holds something else.
    """
    if _rows(x) is not None:
        raise InputError("Expected a list of texts; pairs are for fit and evaluate.")
    return as_texts_and_labels(x, None)[0]


def _rows(x) -> list[Any] | None:
    """Gives pairs and triples as a list; None for single texts."""
    if isinstance(x, np.ndarray):
        x = x.tolist()
    if not hasattr(x, "element_spec"):
        return None if is_raw_text(x) else list(x)
    parts = x.element_spec
    if isinstance(parts, dict):
        parts = tuple(parts[name] for name in COLUMNS if name in parts)
    specs = parts if isinstance(parts, tuple) else (parts,)
    if len(specs) < 2 or any(spec.dtype != "string" for spec in specs):
        return None
    if int(x.cardinality()) == -1:
        raise InputError("The dataset never ends; limit it with .take(…).")
    if specs[0].shape.rank:
        raise InputError("The dataset is batched; hand it in with .unbatch().")
    return list(x.as_numpy_iterator())


def _single(x, y) -> tuple[list[list[str]], list[Any] | None]:
    texts, labels = as_texts_and_labels(x, y)
    if labels is not None and len(labels) != len(texts):
        raise InputError(f"There are {len(texts)} texts but {len(labels)} labels.")
    return [texts], labels


def _columns(rows: list[Any]) -> list[list[str]]:
    found = [_row(row, index) for index, row in enumerate(rows)]
    width = len(found[0])
    for index, row in enumerate(found):
        if len(row) != width:
            raise InputError(
                f"Example {index} has {len(row)} texts but example 0 has {width}; give all of "
                "them a negative, or none."
            )
    return [list(column) for column in zip(*found, strict=True)]


def _row(row: Any, index: int) -> list[str]:
    if isinstance(row, Mapping):
        given = [row.get(name) for name in COLUMNS]
        row = given if given[2] is not None else given[:2]
    texts = list(row) if isinstance(row, (list, tuple)) else [row]
    texts = [t.decode("utf-8", "replace") if isinstance(t, bytes) else t for t in texts]
    if len(texts) not in (2, 3) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"Example {index} is {_short(row)}; expected {_EXPECTED}.")
    return texts


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "…"
