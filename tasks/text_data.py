"""The thin seam between what people hand to `fit` and lists of Python strings."""

import logging

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
    return str(value)


def _flatten_dataset(dataset):
    """Reads a finite dataset of `text` or `(text, label)`, batched or not."""
    if int(dataset.cardinality()) == -1:
        raise InputError("The dataset never ends; limit it with .take(…).")
    texts, labels = [], []
    for element in dataset.as_numpy_iterator():
        text, label = element[:2] if isinstance(element, tuple) else (element, None)
        texts.extend(np.atleast_1d(text).tolist())
        if label is not None:
            labels.extend(np.atleast_1d(label).tolist())
    return texts, labels or None


def as_texts_and_labels(x, y) -> tuple[list[str], list | None]:
    """Gives lists of strings and of labels out of whatever `is_raw_text` accepts."""
    if _is_dataset_of_text(x):
        x, y = _flatten_dataset(x)
    elif isinstance(x, str):
        x = [x]
    texts = [_text(value, index) for index, value in enumerate(x)]
    if y is None:
        return texts, None
    labels = y.tolist() if isinstance(y, np.ndarray) else list(y)
    return texts, [_text(v, i) if isinstance(v, bytes) else v for i, v in enumerate(labels)]


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
