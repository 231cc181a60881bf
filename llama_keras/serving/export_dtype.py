"""Weights that are stored small in an export, and read as what the model computes in.

`bfloat16` halves the file, `int8` quarters it: symmetric, a scale for each output channel of a
matrix (Krishnamoorthi, https://arxiv.org/abs/1806.08342, §3.1). The graph turns them into the
variables' own dtype where it reads them, with core operations only.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from llama_keras.errors import InputError
from llama_keras.training.adapters import weights_without_lora

# Smaller ones are no gain.
_SMALLEST = 4096
_TABLE = "embeddings"


class StoredVariable:
    """Stands where a Keras variable has its value, while signatures are traced.

    Args:
        stored: the small variable.
        dtype: what it is read as.
        scale: what it is multiplied with, None for nothing.
    """

    def __init__(self, stored: tf.Variable, *, dtype: tf.DType, scale: tf.Variable | None = None):
        self.stored, self.scale, self.dtype = stored, scale, dtype
        self.shape = stored.shape

    @property
    def variables(self) -> list[tf.Variable]:
        """What the export holds of it."""
        return [self.stored] if self.scale is None else [self.stored, self.scale]

    def __tf_tensor__(self, dtype=None, name=None):
        """Reads it; TensorFlow calls this wherever it wants a tensor."""
        value = tf.cast(self.stored, self.dtype)
        if self.scale is not None:
            value *= tf.cast(self.scale, self.dtype)
        return value if dtype is None else tf.cast(value, dtype, name=name)

    def numpy(self) -> np.ndarray:
        """Gives the values as they are read."""
        return self.__tf_tensor__().numpy()


def _bfloat16(variable) -> StoredVariable:
    stored = tf.Variable(tf.cast(variable.value, tf.bfloat16), trainable=False)
    return StoredVariable(stored, dtype=variable.value.dtype)


def _int8(variable) -> StoredVariable:
    array = variable.value.numpy().astype("float32")
    # The last axis of a kernel is its output; a table of embeddings has one scale for each token.
    is_table = variable.path.endswith(_TABLE)
    axis = -1 if is_table else tuple(range(array.ndim - 1))
    scale = np.maximum(np.abs(array).max(axis=axis, keepdims=True), 1e-12) / 127.0
    stored = tf.Variable(np.round(array / scale).astype("int8"), trainable=False)
    return StoredVariable(
        stored,
        dtype=variable.value.dtype,
        scale=tf.Variable(scale.astype("float32"), trainable=False),
    )


# name -> what makes a variable small; None leaves it as it is
STORED: dict[str, Callable[[Any], StoredVariable] | None] = {
    "float32": None,
    "bfloat16": _bfloat16,
    "int8": _int8,
}


@contextmanager
def stored_as(dtype: str, *models) -> Iterator[list[tf.Variable]]:
    """Has the backbones of tasks read their matrices from small variables while the block runs.

    Args:
        dtype: a name in `STORED`.
        *models: tasks; their heads stay as they are. Weights that read one variable still do.

    Yields:
        The variables that an export of the tasks has to hold, each once.

    Raises:
        InputError: there is no such dtype.
    """
    if dtype not in STORED:
        raise InputError(f"Weights are stored as one of {list(STORED)}; received {dtype!r}.")
    make, replaced = STORED[dtype], []
    shared = {id(v): v for model in models for v in weights_without_lora(model.backbone)}
    all_weights = [v for model in models for v in weights_without_lora(model)]
    kept = {id(v.value): [v.value] for v in all_weights}
    small: dict[int, StoredVariable] = {}
    try:
        for variable in shared.values():
            value = variable.value
            if make is None or not _is_large(value):
                continue
            if id(value) not in small:
                small[id(value)] = make(variable)
                kept[id(value)] = small[id(value)].variables
            replaced.append((variable, value))
            # Keras has no way to say this; a graph reads what stands here when it is traced.
            variable._value = small[id(value)]
        yield [one for several in kept.values() for one in several]
    finally:
        for variable, value in replaced:
            variable._value = value


def _is_large(value: tf.Variable) -> bool:
    big = value.shape.num_elements() >= _SMALLEST
    return value.dtype.is_floating and len(value.shape) > 1 and big
