"""Sums and lists over the replicas of a `tf.distribute` strategy; with one replica nothing."""

from typing import Any

import tensorflow as tf

from llama_keras.layers.dropout import number_replicas


def _number():
    context: Any = tf.distribute.get_replica_context()
    return 0 if context is None else context.replica_id_in_sync_group


number_replicas(_number)


def _context():
    context: Any = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None


def sum_over_replicas(values) -> Any:
    """Gives the sums over all replicas of a tensor, or of a list of tensors and Nones.

    Call it in a replica; all replicas call it with tensors of the same shapes.
    """
    context = _context()
    if context is None:
        return values
    if not isinstance(values, list):
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.convert_to_tensor(values))
    # At once, so that small ones travel together.
    there = [value for value in values if value is not None]
    summed = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, there))
    return [None if value is None else next(summed) for value in values]


def split_rows(values, *, strategy: tf.distribute.Strategy):
    """Gives the rows of nested tensors to the replicas of this process, row i to replica i mod R.

    Args:
        values: nested tensors or arrays `(B, …)`; or Nones.
        strategy: whose replicas they are for.
    """
    own: Any = strategy
    count = len(own.extended.worker_devices)

    def shared(value):
        if value is None:
            return None
        rows = tf.convert_to_tensor(value)

        def of_replica(context):
            return rows[context.replica_id_in_sync_group % count :: count]

        return strategy.experimental_distribute_values_from_function(of_replica)

    return tf.nest.map_structure(shared, values)


def across(values):
    """Gives nested tensors with the rows of all replicas, in the order of the replicas.

    A replica's own rows stay part of its graph, the others are numbers to it. So where each replica
    computes the same function of the result, its gradients are those of its own rows, and the sums
    of gradients over the replicas are the function's.

    Args:
        values: nested tensors `(B, …)`, which B may differ between replicas; or Nones.
    """
    context = _context()
    if context is None:
        return values
    rows = next(tf.shape(v)[0] for v in tf.nest.flatten(values) if v is not None)
    counts = context.all_gather(rows[None], axis=0)
    first = tf.reduce_sum(counts[: context.replica_id_in_sync_group])

    def joined(value):
        if value is None:
            return None
        everyone = context.all_gather(tf.stop_gradient(value), axis=0)
        return tf.concat([everyone[:first], value, everyone[first + rows :]], axis=0)

    return tf.nest.map_structure(joined, values)
