import numpy as np
import pytest
import tensorflow as tf

from llama_keras.serving import window_logits as module
from llama_keras.serving.window_logits import window_logits


class Model:
    """Says of each token its id, and how many rows went through the model with it."""

    class tokenizer:  # noqa: D106
        pad_id = 0

    def __call__(self, features, training):
        ids = tf.cast(features["token_ids"] * features["padding_mask"], tf.float32)
        rows = tf.cast(tf.shape(ids)[0], tf.float32)
        return tf.stack([ids, tf.zeros_like(ids) + rows], axis=-1)


@pytest.mark.parametrize("at_once", [1, 12, 13, 24, 8192])
@pytest.mark.parametrize("graph", [False, True])
def test_rows_go_through_the_model_a_few_at_a_time(at_once, graph, monkeypatch):
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", at_once)
    rows = [[1, 2, 3, 4, 5, 6], [7], [8, 9], [10], [11, 12]]

    def run():
        return window_logits(Model(), tf.ragged.constant(rows, dtype=tf.int32), size=2)

    found = (tf.function(run) if graph else run)().numpy()
    expected = [row + [0] * (6 - len(row)) for row in rows]
    np.testing.assert_array_equal(found[:, :, 0], expected)
    most = min(max(at_once // 6, 1), len(rows))
    sizes = [most] * (len(rows) // most * most) + [len(rows) % most] * (len(rows) % most)
    assert found[:, 0, 1].tolist() == sizes


def test_no_rows_have_a_width_all_the_same():
    none = tf.RaggedTensor.from_row_lengths(tf.zeros([0], tf.int32), tf.zeros([0], tf.int64))  # pyright: ignore[reportAttributeAccessIssue]
    assert window_logits(Model(), none, size=2).shape == (0, 1, 2)
