import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_keras.data.bucketing import TokenRows
from llama_keras.data.corrupted import (
    Noise,
    objective_inference_batches,
    objective_training_batches,
)
from llama_keras.errors import InputError
from llama_keras.text.corruption import RandomDeletion, RandomMasking, SpanCorruption
from llama_keras.text.corruption_rows import NoiseVocabulary

VOCABULARY = NoiseVocabulary(size=50, mask_id=49, protected_ids=(1,))
MASKING = Noise(layout="corrupted", corruption=RandomMasking(rate=0.4), vocabulary=VOCABULARY)
DENOISING = Noise(
    layout="prefix",
    corruption=RandomDeletion(rate=0.4),
    vocabulary=VOCABULARY,
    separator_id=48,
    end_id=2,
)


def rows_of(count=11, seed=0):
    rng = np.random.default_rng(seed)
    return TokenRows([rng.integers(3, 47, size=1 + i % 7).tolist() for i in range(count)], 0)


def batches(rows, noise, *, epochs, first_step=0, batch_size=4):
    dataset, steps = objective_training_batches(
        rows, noise=noise, batch_size=batch_size, seed=5, first_step=first_step
    )
    return list(dataset.take(steps * epochs).as_numpy_iterator())


def assert_same(found, expected):
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("noise", [MASKING, DENOISING], ids=["masking", "denoising"])
def test_a_resumed_run_sees_the_same_batches(noise):
    rows = rows_of()
    whole = batches(rows, noise, epochs=3)
    assert_same(batches(rows, noise, epochs=2, first_step=3), whole[3:])
    assert_same(batches(rows, noise, epochs=1, first_step=4), whole[4:7])


def clean_of(batch, noise):
    """The clean texts of a batch, as tuples."""
    for ids, weights, mask in zip(
        batch["targets"], batch["weights"], batch["padding_mask"], strict=True
    ):
        part = weights > 0 if noise is DENOISING else mask > 0
        yield tuple(ids[part][:-1] if noise is DENOISING else ids[part])


@pytest.mark.parametrize("noise", [MASKING, DENOISING], ids=["masking", "denoising"])
def test_each_epoch_has_every_text_once_and_noise_of_its_own(noise):
    rows = rows_of()
    whole = batches(rows, noise, epochs=2)
    inputs = []
    for epoch in (whole[:3], whole[3:]):
        clean = sorted(text for batch in epoch for text in clean_of(batch, noise))
        assert clean == sorted(map(tuple, rows.token_ids))
        pairs = {
            text: ids.tobytes()
            for batch in epoch
            for text, ids in zip(clean_of(batch, noise), batch["token_ids"], strict=True)
        }
        inputs.append(pairs)
    differs = [inputs[0][text] != inputs[1][text] for text in inputs[0]]
    assert sum(differs) > len(differs) // 2


def test_masking_keeps_places_and_weighs_the_corrupted_ones():
    for batch in batches(rows_of(), MASKING, epochs=1):
        changed = batch["token_ids"] != batch["targets"]
        assert np.all(batch["weights"][changed] == 1.0)
        assert np.all(batch["weights"] <= batch["padding_mask"])
        assert np.all(batch["weights"].sum(-1) >= 1)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.lists(st.integers(3, 47), min_size=1, max_size=9), min_size=1, max_size=5))
def test_denoising_rows_are_corrupted_separator_clean_end(texts):
    rows = TokenRows(texts, 0)
    (batch,) = objective_inference_batches(rows, noise=DENOISING, batch_size=8).as_numpy_iterator()
    clean = sorted(texts, key=len)
    for at, text in enumerate(clean):
        row = batch["token_ids"][at][batch["padding_mask"][at] > 0].tolist()
        split = row.index(48)
        assert row[split + 1 :] == [*text, 2]
        kept = iter(text)
        assert all(id_ in kept for id_ in row[:split])  # in order, some left out
        assert batch["prefix_mask"][at].sum() == split + 1
        assert batch["weights"][at].tolist() == [
            float(split < place < len(row)) for place in range(batch["token_ids"].shape[1])
        ]


def test_evaluation_has_the_same_noise_in_any_batches_and_none_of_the_first_epoch():
    rows = rows_of()
    seen = []
    for batch_size in (2, 11):
        dataset = objective_inference_batches(rows, noise=MASKING, batch_size=batch_size)
        seen.append(
            [
                ids[mask > 0].tolist()
                for batch in dataset.as_numpy_iterator()
                for ids, mask in zip(batch["token_ids"], batch["padding_mask"], strict=True)
            ]
        )
    assert seen[0] == seen[1]
    training = {
        tuple(ids[mask > 0])
        for batch in batches(rows, MASKING, epochs=1)
        for ids, mask in zip(batch["token_ids"], batch["padding_mask"], strict=True)
    }
    assert sum(tuple(row) in training for row in seen[0]) < len(seen[0])


def test_clean_layouts():
    rows = rows_of()
    for batch in batches(rows, Noise(layout="clean"), epochs=1):
        np.testing.assert_array_equal(batch["targets"], batch["token_ids"])
        np.testing.assert_array_equal(batch["weights"], batch["padding_mask"])
    for batch in batches(rows, Noise(layout="views"), epochs=1):
        assert sorted(batch) == ["padding_mask", "token_ids"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layout": "both"}, "There is no layout 'both'"),
        ({"layout": "corrupted"}, "'corrupted' needs corruption"),
        ({"layout": "corrupted", "corruption": RandomMasking()}, "needs vocabulary"),
        (
            {"layout": "corrupted", "corruption": RandomDeletion(), "vocabulary": VOCABULARY},
            "random_deletion moves tokens.*objective 'denoising'",
        ),
        (
            {"layout": "corrupted", "corruption": SpanCorruption(), "vocabulary": VOCABULARY},
            "span_corruption moves tokens",
        ),
        (
            {"layout": "prefix", "corruption": RandomDeletion(), "vocabulary": VOCABULARY},
            "needs separator_id",
        ),
    ],
)
def test_noise_that_does_not_suit_the_layout_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Noise(**arguments)


def test_an_empty_set_is_refused():
    with pytest.raises(InputError, match="the data set is empty"):
        objective_training_batches(TokenRows([], 0), noise=MASKING, batch_size=2, seed=0)


def test_batches_run_in_a_graph_traced_once():
    dataset, _ = objective_training_batches(rows_of(), noise=DENOISING, batch_size=4, seed=0)
    assert {spec.dtype for spec in dataset.element_spec.values()} == {tf.int32, tf.float32}
    assert all(spec.shape.rank == 2 for spec in dataset.element_spec.values())
