"""The one place where a task's functions of tensors become compiled ones, backend by backend."""

from collections.abc import Callable, Sequence

import keras


class Compiled:
    """A function of nested tensors, traced once for each set of shapes, or but once.

    Args:
        function: takes and gives nested tensors; written with `keras.ops`.
        variables: what it reads; passed as arguments where the backend needs that (JAX).
        jit_compile: have XLA compile it, for each set of shapes anew; on JAX always so. Otherwise
            one TensorFlow trace serves all shapes.

    Attributes:
        traces: how often `function` was traced.
    """

    def __init__(
        self,
        function: Callable,
        *,
        variables: Sequence[keras.Variable] = (),
        jit_compile: bool = False,
    ):
        self.traces = 0

        def counted(*tensors):
            self.traces += 1
            return function(*tensors)

        wrap = _WRAPPERS.get(keras.backend.backend(), _eager)
        self._call = wrap(counted, list(variables), jit_compile)

    def __call__(self, *tensors):
        """Calls the function."""
        return self._call(*tensors)


def _eager(function, variables, jit_compile):
    return function


def _tensorflow(function, variables, jit_compile):
    import tensorflow as tf

    compiled = tf.function(function, jit_compile=jit_compile, autograph=False)
    if jit_compile:
        return compiled
    concrete = None

    def call(*tensors):
        nonlocal concrete
        if concrete is None:
            specs = [tf.nest.map_structure(_any_size, argument) for argument in tensors]
            concrete = compiled.get_concrete_function(*specs)
        return concrete(*tensors)

    return call


def _any_size(tensor):
    import tensorflow as tf

    return tf.TensorSpec([None] * len(tensor.shape), tensor.dtype)


def _jax(function, variables, jit_compile):
    import jax

    @jax.jit
    def pure(values, *tensors):
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return function(*tensors)

    return lambda *tensors: pure([variable.value for variable in variables], *tensors)


_WRAPPERS = {"tensorflow": _tensorflow, "jax": _jax}
