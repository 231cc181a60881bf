import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_keras.data.token_windows import padded, token_windows

PAD, FIRST, LAST = 99, 97, 98


def windows_of(lengths, *, limit, frame=(None, None), asked=None):
    rows = [[1000 * i + j for j in range(n)] for i, n in enumerate(lengths)]
    asked = [list(range(n)) for n in lengths] if asked is None else asked
    found = token_windows(
        tf.ragged.constant(rows, dtype=tf.int32, ragged_rank=1),
        asked=tf.constant([t for row in asked for t in row], tf.int32),
        asked_splits=tf.constant(np.cumsum([0, *map(len, asked)]), tf.int64),
        limit=limit,
        pad_id=PAD,
        first_id=frame[0],
        last_id=frame[1],
    )
    return rows, found.token_ids.to_list(), *(x.numpy() for x in found[1:])


def test_a_text_that_fits_is_one_window():
    rows, ids, texts, starts, places = windows_of([3, 0, 8], limit=8)
    assert ids == [rows[0], [PAD], rows[2]]
    assert texts.tolist() == [0, 1, 2]
    assert starts.tolist() == [0, 0, 0]
    assert places.tolist() == [[0, 0], [0, 1], [0, 2], *([2, j] for j in range(8))]


def test_windows_share_a_quarter_and_the_last_is_whole():
    (row,), ids, _, starts, places = windows_of([19], limit=8)
    assert starts.tolist() == [0, 6, 11]
    assert ids == [row[0:8], row[6:14], row[11:19]]
    # The middle of 6..8 is 7, of 11..14 it is 13.
    assert places[:, 0].tolist() == [0] * 7 + [1] * 6 + [2] * 6


def test_each_window_begins_and_ends_as_a_text_does():
    (row, _), ids, *_, places = windows_of([5, 0], limit=6, frame=(FIRST, LAST))
    assert ids == [[FIRST, *row[:4], LAST], [FIRST, *row[1:], LAST], [FIRST, LAST]]
    assert [ids[w][c] for w, c in places] == row


@settings(max_examples=80, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    limit=st.integers(1, 12),
    frame=st.sampled_from([(None, None), (FIRST, None), (None, LAST), (FIRST, LAST)]),
)
def test_every_token_is_read_where_it_stands_farthest_from_a_cut(lengths, limit, frame):
    rows, ids, texts, starts, places = windows_of(lengths, limit=limit, frame=frame)
    extra = sum(x is not None for x in frame)
    size = max(limit - extra, 1)
    assert all(0 < len(window) <= size + extra for window in ids)
    flat = [token for row in rows for token in row]
    assert [ids[window][column] for window, column in places] == flat
    for number, token in enumerate(flat):
        text, at = divmod(token, 1000)
        length = min(lengths[text], size)

        def room(window, at=at, length=length, text=text):
            left, right = at - starts[window], starts[window] + length - 1 - at
            if left < 0 or right < 0:
                return -1
            left = np.inf if starts[window] == 0 else left
            right = np.inf if starts[window] + length == lengths[text] else right
            return min(left, right)

        best = max(room(window) for window in np.flatnonzero(texts == text))
        assert texts[places[number, 0]] == text
        assert room(places[number, 0]) >= min(best - 1, size // 8)


def test_padded_features():
    features = padded(tf.ragged.constant([[1, 2], [3]], dtype=tf.int32), PAD)
    assert features["token_ids"].numpy().tolist() == [[1, 2], [3, PAD]]
    assert features["padding_mask"].numpy().tolist() == [[1, 1], [1, 0]]


@pytest.mark.parametrize("limit", [2, 3])
def test_only_tokens_asked_about_have_places(limit):
    _, ids, *_, places = windows_of([7, 4], limit=limit, asked=[[0, 6], [3]])
    assert [ids[w][c] for w, c in places] == [0, 6, 1003]
