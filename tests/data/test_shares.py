import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_keras.data.bucketing import TokenRows, inference_batches, training_batches
from llama_keras.data.shares import Share


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 13), st.integers(1, 5), st.integers(1, 4))
def test_replicas_share_each_batch_evenly(rows, batch_size, replicas):
    def numbers():
        return tf.data.Dataset.range(rows).batch(batch_size)

    shares = [
        list(Share(replicas, first, 1).split(numbers()).as_numpy_iterator())
        for first in range(replicas)
    ]
    for step, batch in enumerate(numbers().as_numpy_iterator()):
        parts = [share[step] for share in shares]
        assert sorted(np.concatenate(parts)) == sorted(batch)
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1


def test_a_pipeline_feeds_its_replicas_in_turn():
    numbers = tf.data.Dataset.range(8).batch(4)
    found = [part.tolist() for part in Share(4, 2, 2).split(numbers).as_numpy_iterator()]
    assert found == [[2], [3], [6], [7]]


ROWS = TokenRows([[i + 1] * (1 + i % 4) for i in range(11)], 0, np.arange(11, dtype="int32"))


def labels_of(dataset, count):
    return [labels.tolist() for _, labels in dataset.take(count).as_numpy_iterator()]


@pytest.mark.parametrize("first_step", [0, 1, 3, 7])
def test_a_stream_begins_anywhere(first_step):
    whole, steps = training_batches(ROWS, batch_size=4, seed=5)
    later, _ = training_batches(ROWS, batch_size=4, seed=5, first_step=first_step)
    assert steps == 3
    expected = labels_of(whole, first_step + 5)[first_step:]
    assert labels_of(later, 5) == expected


def test_an_empty_share_has_no_rows_and_a_width():
    dataset, _ = inference_batches(ROWS, batch_size=5, share=Share(2, 1, 1))
    *_, (features, labels) = dataset
    assert labels.shape == (0,)
    assert features["token_ids"].shape == features["padding_mask"].shape == (0, 1)
