"""The thin seam between what people hand to `fit` and lists of Python strings."""

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np

from llama_keras.errors import InputError

logger = logging.getLogger("llama_keras")


def _is_dataset_of_text(x) -> bool:
    if not hasattr(x, "element_spec"):
        return False
    spec = x.element_spec
    first = spec[0] if isinstance(spec, tuple) else spec
    return getattr(first, "dtype", None) == "string"


def is_raw_text(x) -> bool:
    """Says whether `x` holds strings: one, a list, an array, or a `tf.data.Dataset` of them."""
    if isinstance(x, str) or _is_dataset_of_text(x):
        return True
    if isinstance(x, np.ndarray):
        return x.dtype.kind in "USO"
    if isinstance(x, (list, tuple)):
        return all(isinstance(item, (str, bytes)) for item in x)
    return False


def _text(value, index: int) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"Text number {index} is not UTF-8: {error}") from error
    if not isinstance(value, str):
        raise InputError(f"Text number {index} is {value!r:.80}; expected a string.")
    return str(value)


def dataset_rows(dataset) -> Iterator[tuple[Any, list]]:
    """Yields the texts and labels of each element of a finite dataset, batched or not.

    Args:
        dataset: of `x` or `(x, label)`, where `x` is a text or a tuple of texts.

    Yields:
        A list of texts, or a tuple of such lists; and a list of as many labels, empty where the
        dataset has none.
    """
    if int(dataset.cardinality()) == -1:
        raise InputError("The dataset never ends; limit it with .take(…).")
    for element in dataset.as_numpy_iterator():
        parts: Any = element if isinstance(element, tuple) else (element,)
        x, label = parts[0], parts[1] if len(parts) > 1 else None
        columns = x if isinstance(x, tuple) else (x,)
        is_batch = np.ndim(columns[0]) > 0
        texts = [np.atleast_1d(column).tolist() for column in columns]
        labels = []
        if label is not None:
            # A ragged batch has lists of its own.
            labels = label.to_list() if hasattr(label, "to_list") else np.asarray(label).tolist()
            labels = labels if is_batch else [labels]
        yield tuple(texts) if isinstance(x, tuple) else texts[0], labels


def _flatten_dataset(dataset):
    texts, labels = [], []
    for part, found in dataset_rows(dataset):
        texts += part
        labels += found
    return texts, labels or None


def as_texts_and_labels(x, y) -> tuple[list[str], list | None]:
    """Gives lists of strings and of labels out of whatever `is_raw_text` accepts."""
    if _is_dataset_of_text(x):
        x, y = _flatten_dataset(x)
    elif isinstance(x, str):
        x = [x]
    return [_text(value, index) for index, value in enumerate(x)], label_list(y)


def label_list(y) -> list | None:
    """Gives labels, a list or an array, as a list of Python values with strings for bytes."""
    if y is None:
        return None
    labels = np.asarray(y).tolist() if hasattr(y, "__array__") else list(y)
    return [_text(v, i) if isinstance(v, bytes) else v for i, v in enumerate(labels)]


def clean_texts(texts: list[str], *, cleaning) -> list[str]:
    """Gives the texts that the tokenizer sees, and tells of those of which nothing is left.

    Args:
        texts: raw text.
        cleaning: a `text.cleaning.Cleaning`, or None for text as it is.
    """
    if cleaning is None:
        return texts
    cleaned = cleaning.clean(texts)
    emptied = sum(bool(raw) and not text for raw, text in zip(texts, cleaned, strict=True))
    if emptied:
        logger.warning("cleaning left nothing of %d of %d texts", emptied, len(texts))
    return cleaned
