"""Work on many rows a part at a time, in the graph, so that memory has a bound.

R rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf


def in_parts(
    function: Callable,
    rows: Sequence[tf.Tensor],
    *,
    outputs: Sequence[tf.TensorSpec],
    rows_at_once: int | tf.Tensor,
) -> tuple[tf.Tensor, ...]:
    """Gives what `function` gives for all rows, though it sees but a part of them at once.

    Args:
        function: takes a part of each of `rows`; gives one tensor for each of `outputs`, of as many
            rows. It is called once even where there are no rows.
        rows: tensors `(R, …)`.
        outputs: dtype and shape `(None, …)` of what it gives.
        rows_at_once: most rows of a part.
    """
    count = tf.shape(rows[0])[0]
    steps = tf.maximum(-(-count // rows_at_once), 1)

    def step(number, done):
        part = slice(number * rows_at_once, (number + 1) * rows_at_once)
        made = function(*(tensor[part] for tensor in rows))
        return number + 1, tuple(
            all_.write(number, one) for all_, one in zip(done, made, strict=True)
        )

    begun = tuple(
        tf.TensorArray(spec.dtype, steps, infer_shape=False, element_shape=spec.shape)
        for spec in outputs
    )
    _, done = tf.while_loop(
        lambda number, _: number < steps, step, (0, begun), parallel_iterations=1
    )
    return tuple(
        tf.ensure_shape(parts.concat(), spec.shape)
        for parts, spec in zip(done, outputs, strict=True)
    )
