"""Variables that are made before the graph of a step.

TensorFlow traces a `tf.function` a second time when its first trace made variables. Keras makes
those of the optimizer and the metrics there, unless a `tf.distribute` strategy is in use. Tracing
is most of what `fit` does before the first step of a deep model.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf


def build_optimizer(optimizer, variables: Sequence) -> None:
    """Makes the variables of an optimizer that has none, outside of the graph that is traced.

    Args:
        optimizer: of Keras.
        variables: what it moves.
    """
    if not optimizer.built:
        _in_no_graph(lambda: optimizer.build(variables), near=variables)


def build_metrics(update: Callable, *arguments, near: Sequence) -> None:
    """Makes the variables that a call would make, outside of the graph that is traced.

    Args:
        update: a function that updates metrics; it is traced, not carried out.
        *arguments: nested tensors and `None`s like those it gets.
        near: variables of the model.
    """
    specs = tf.nest.map_structure(
        lambda value: None if value is None else tf.type_spec_from_value(value), arguments
    )
    traced = tf.function(update, autograph=False)
    _in_no_graph(lambda: traced.get_concrete_function(*specs), near=near)


def _in_no_graph(make: Callable[[], object], *, near: Sequence) -> None:
    """Calls a function where nothing is traced, on the device of the first of some variables."""
    device = near[0].value.device if near else None

    def on_device() -> None:
        with tf.device(device):
            make()

    # A thread: `tf.init_scope` would still tell the graph's `tf.function` of the variables.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(on_device).result()
