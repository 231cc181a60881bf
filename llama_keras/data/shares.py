"""Which rows of a batch each replica gets.

Axes: B rows of the global batch, R replicas.
"""

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from llama_keras.errors import InputError


@dataclass(frozen=True)
class Share:
    """Some of the replicas that learn together: those that one input pipeline feeds.

    Attributes:
        replicas: how many there are in all.
        first: the first one of this pipeline.
        count: how many this pipeline feeds.
    """

    replicas: int = 1
    first: int = 0
    count: int = 1

    def split(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Gives the rows of each of the replicas, one after the other, for each batch.

        Row i goes to replica i mod R, so that no replica has two rows more than another one; at
        the end of an epoch there may be none for some.

        Args:
            dataset: numbers of rows `(B,)`, a batch each.
        """
        if self.replicas == 1:
            return dataset

        def parts(index):
            # (R, rows of a replica), -1 where there is none
            missing = tf.math.floormod(-tf.shape(index)[0], self.replicas)
            filled = tf.pad(index, tf.convert_to_tensor([[0, missing]]), constant_values=-1)
            each = tf.transpose(tf.reshape(filled, (-1, self.replicas)))
            mine = each[self.first : self.first + self.count]
            return tf.data.Dataset.from_tensor_slices(mine)

        return dataset.flat_map(parts).map(lambda index: tf.boolean_mask(index, index >= 0))


WHOLE = Share()


def shard_by_rows(data):
    """Gives a `tf.data.Dataset` of which every worker takes its rows of each batch.

    By default TensorFlow shares out files where a data set reads files, which changes the batches
    and fails when there are fewer files than workers. Other data, and a policy that somebody chose,
    stay as they are.
    """
    policies = tf.data.experimental.AutoShardPolicy
    if not isinstance(data, tf.data.Dataset):
        return data
    if data.options().experimental_distribute.auto_shard_policy != policies.AUTO:
        return data
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = policies.DATA
    return data.with_options(options)


def check_order(data, *, shuffle) -> None:
    """Raises `InputError` where each worker would shuffle arrays in an order of its own."""
    if isinstance(data, tf.data.Dataset | tf.distribute.DistributedDataset) or not shuffle:
        return
    # What `keras.utils.set_random_seed` sets; (None, None) where nobody did.
    if tf.compat.v1.get_seed(None)[0] is None:
        raise InputError(
            "Each of several workers would shuffle these arrays in its own order, so that rows are "
            "lost and others come twice; call keras.utils.set_random_seed(NUMBER) on all workers "
            "before fit, or give shuffle=False or a tf.data.Dataset."
        )


def share_out(make: Callable[[Share], tf.data.Dataset], *, strategy):
    """Gives a strategy's data set: `make`'s, in shares where there are several replicas.

    Args:
        make: gives the batches of a share.
        strategy: a `tf.distribute.Strategy`.

    Returns:
        A `tf.data.Dataset`, or a `tf.distribute.DistributedDataset`, which `keras.Model.fit` takes
        as well.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return make(WHOLE)

    def of_pipeline(context):
        count = replicas // context.num_input_pipelines
        return make(Share(replicas, context.input_pipeline_id * count, count))

    return strategy.distribute_datasets_from_function(of_pipeline)
