"""A batch in parts, one after the other.

Axes: B rows of the batch, P parts.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf


def add_over_parts(function: Callable, batch, *, parts: int, like: Sequence) -> list:
    """Gives the sums of `function` over the parts of a batch.

    Parts have ceil(B / P) rows, the last ones fewer or none.

    Args:
        function: takes a part, gives a list of tensors or Nones.
        batch: nested tensors `(B, …)`, and Nones.
        parts: their number.
        like: variables of the shapes and dtypes of the sums.
    """
    rows = tf.shape(next(v for v in tf.nest.flatten(batch) if v is not None))[0]
    size = (rows + parts - 1) // parts
    missing: set[int] = set()

    def part(number):
        return tf.nest.map_structure(
            lambda v: None if v is None else v[number * size : (number + 1) * size], batch
        )

    def add(number, sums):
        found = function(part(number))
        missing.update(i for i, value in enumerate(found) if value is None)
        pairs = zip(sums, found, strict=True)
        return number + 1, [a if b is None else a + tf.cast(b, a.dtype) for a, b in pairs]

    zeros = [tf.zeros(v.shape, v.dtype) for v in like]
    _, sums = tf.while_loop(
        lambda number, _: number < parts,
        add,
        (tf.constant(0), zeros),
        parallel_iterations=1,
        maximum_iterations=parts,
    )
    return [None if i in missing else value for i, value in enumerate(sums)]
