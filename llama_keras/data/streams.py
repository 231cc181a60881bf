"""Orders and read-ahead that all streams of batches share."""

import tensorflow as tf

# Batches that wait, made, for the model.
READ_AHEAD = 4


def order_keys(seed: int, epoch):
    """Gives the two numbers that an epoch's order follows from, int64 `(2,)`."""
    return tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])


def shuffled(values, *, keys):
    """Gives `values` in the order that `keys`, int64 `(2,)`, stand for: the same at every call."""
    shuffle = tf.random.experimental.stateless_shuffle  # pyright: ignore[reportAttributeAccessIssue]
    return shuffle(values, seed=keys)


def read_ahead(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Gives the data set with some batches made in advance, and nothing to tune.

    TensorFlow 2.21 tunes in a thread that sleeps twice as long each time, and the end of an
    iteration waits for it: a `fit` of 16 seconds ended after 20.6.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.prefetch(READ_AHEAD).with_options(options)
