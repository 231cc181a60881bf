import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_keras.data.bucketing import TokenRows
from llama_keras.data.pairs import PREFIXES, ViewRows, view_batches


def make_rows(count, views=2):
    rows = [
        TokenRows([[100 * view + i + 1] * (1 + (i * (view + 1)) % 5) for i in range(count)], 0)
        for view in range(views)
    ]
    return ViewRows(tuple(rows), np.arange(views * count, dtype="int32").reshape(count, views))


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 20), st.integers(1, 7), st.integers(2, 3), st.integers(0, 9))
def test_each_epoch_holds_every_example_once_and_whole(count, batch_size, views, seed):
    rows = make_rows(count, views)
    dataset, steps = view_batches(rows, batch_size=batch_size, seed=seed)
    batches = list(itertools.islice(dataset, 2 * steps))
    for epoch in (batches[:steps], batches[steps:]):
        seen, sizes = [], []
        for features, numbers in epoch:
            sizes.append(len(numbers))
            for at in range(len(numbers)):
                found = []
                for prefix in PREFIXES[:views]:
                    ids, mask = (
                        features[prefix + name][at].numpy()
                        for name in ("token_ids", "padding_mask")
                    )
                    assert (ids[mask == 0] == 0).all()
                    found.append(ids[mask == 1].tolist())
                example = found[0][0] - 1
                assert found == [view.token_ids[example] for view in rows.views]
                seen.append(example)
        assert sorted(seen) == list(range(count))
        assert max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1


def test_the_order_is_a_function_of_seed_and_epoch():
    def order(seed):
        dataset, steps = view_batches(make_rows(20), batch_size=4, seed=seed)
        batches = itertools.islice(dataset, 2 * steps)
        return np.concatenate([f["token_ids"][:, 0] for f, _ in batches]).reshape(2, -1).tolist()

    first, other = order(1), order(2)
    assert first == order(1)
    assert first[0] != first[1] and first[0] != other[0]


def test_numbers_of_a_batch_tell_equal_texts():
    rows = make_rows(6)
    shared = np.array([[0, 9], [1, 9], [2, 9], [0, 4], [7, 0], [3, 3]], "int32")
    dataset, _ = view_batches(ViewRows(rows.views, shared), batch_size=6, seed=0)
    features, numbers = next(iter(dataset))
    expected = shared[features["token_ids"][:, 0].numpy() - 1].ravel()
    found = numbers.numpy().ravel()
    assert ((found[:, None] == found) == (expected[:, None] == expected)).all()
