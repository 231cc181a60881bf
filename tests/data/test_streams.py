import numpy as np
import tensorflow as tf

from llama_keras.data.bucketing import TokenRows, inference_batches, training_batches
from llama_keras.data.streams import order_keys, shuffled


def test_orders_follow_from_seed_and_epoch():
    orders = [
        shuffled(tf.range(50), keys=order_keys(seed, epoch)).numpy()
        for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))
    ]
    np.testing.assert_array_equal(orders[0], orders[1])
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_streams_have_nothing_to_tune():
    rows = TokenRows([[1, 2], [3]], 0, np.array([0, 1], "int32"))
    streams = [
        training_batches(rows, batch_size=1, seed=0)[0],
        inference_batches(rows, batch_size=1)[0],
    ]
    assert [stream.options().autotune.enabled for stream in streams] == [False, False]
