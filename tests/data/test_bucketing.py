import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_keras.data.bucketing import (
    NO_LABEL,
    TokenRows,
    inference_batches,
    training_batches,
    weighted,
)
from llama_keras.errors import InputError


def make_rows(lengths):
    token_ids = [[index + 1] * length for index, length in enumerate(lengths)]
    return TokenRows(token_ids, pad_id=0, labels=np.arange(len(lengths), dtype="int32"))


def epochs_of(rows, *, batch_size, seed, epochs):
    dataset, steps = training_batches(rows, batch_size=batch_size, seed=seed)
    batches = [
        (f["token_ids"].numpy(), f["padding_mask"].numpy(), y.numpy())
        for f, y in itertools.islice(dataset, steps * epochs)
    ]
    return [batches[e * steps : (e + 1) * steps] for e in range(epochs)]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(1, 7), st.integers(0, 9))
def test_each_epoch_holds_every_text_once_and_whole(lengths, batch_size, seed):
    rows = make_rows(lengths)
    for batches in epochs_of(rows, batch_size=batch_size, seed=seed, epochs=2):
        seen = []
        for token_ids, mask, labels in batches:
            assert token_ids.shape == mask.shape
            for ids, real, label in zip(token_ids, mask, labels, strict=True):
                assert ids[real == 1].tolist() == rows.token_ids[label]
                assert (ids[real == 0] == 0).all()
                seen.append(label)
        assert sorted(seen) == list(range(len(lengths)))


def test_order_is_a_function_of_seed_and_epoch():
    rows = make_rows([3, 1, 4, 1, 5, 9, 2, 6] * 8)

    def labels(seed):
        epochs = epochs_of(rows, batch_size=4, seed=seed, epochs=2)
        return [np.concatenate([y for *_, y in batches]).tolist() for batches in epochs]

    first, again, other = labels(1), labels(1), labels(2)
    assert first == again
    assert first[0] != first[1]
    assert first[0] != other[0]


def test_bucketing_pads_less_than_random_order():
    lengths = np.random.default_rng(0).integers(1, 60, 512)
    rows = make_rows(lengths.tolist())
    (batches,) = epochs_of(rows, batch_size=16, seed=0, epochs=1)
    padded = sum(token_ids.size for token_ids, *_ in batches)
    in_file_order = sum(group.max() * 16 for group in lengths.reshape(-1, 16))
    assert padded < 1.1 * lengths.sum() < 0.75 * in_file_order


def test_inference_order_leads_back_to_the_texts():
    rows = make_rows([5, 1, 3, 2])
    dataset, order = inference_batches(rows, batch_size=3)
    labels = np.concatenate([y.numpy() for _, y in dataset])
    assert labels.tolist() == order.tolist()
    assert order.tolist() == [1, 3, 2, 0]


def test_without_labels_the_features_come_alone():
    dataset, _ = inference_batches(TokenRows([[1], [2, 3]], pad_id=0), batch_size=2)
    assert set(next(iter(dataset))) == {"token_ids", "padding_mask"}


def test_refuses_nothing_and_empty_rows():
    with pytest.raises(InputError, match="empty"):
        TokenRows([], pad_id=0)
    with pytest.raises(InputError, match="no tokens"):
        TokenRows([[1], []], pad_id=0)


def test_labels_of_tokens_are_padded_like_tokens():
    rows = TokenRows([[1, 2, 3], [4]], pad_id=0, labels=[[0, NO_LABEL, 2], [1]])
    dataset, order = inference_batches(rows, batch_size=2)
    ((features, labels),) = list(dataset)
    assert order.tolist() == [1, 0]
    assert features["token_ids"].numpy().tolist() == [[4, 0, 0], [1, 2, 3]]
    assert labels.numpy().tolist() == [[1, NO_LABEL, NO_LABEL], [0, NO_LABEL, 2]]
    assert rows.take([1]).labels == [[1]]
    with pytest.raises(InputError, match="Row 1 has 1 tokens but 2 labels"):
        TokenRows([[1], [2]], pad_id=0, labels=[[1], [1, 1]])


def test_class_weights_multiply_those_of_texts():
    rows = replace(make_rows([1, 2, 3]), sample_weights=np.array([1.0, 2.0, 3.0], "float32"))
    found = weighted(rows, {1: 0.5, np.int64(2): 2}).sample_weights
    assert np.asarray(found).tolist() == [1.0, 1.0, 6.0]
    for wrong in ({"a": 1.0}, {1.5: 1.0}, {1: "2"}, {1: -1.0}, {1: float("inf")}):
        with pytest.raises(InputError, match="expected the number of a class and a weight of 0"):
            weighted(rows, wrong)
    with pytest.raises(InputError, match="needs examples of one label each"):
        weighted(replace(rows, labels=None), {1: 1.0})
