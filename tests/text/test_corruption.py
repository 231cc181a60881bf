import functools
import inspect
import json
import re
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_keras.errors import InputError
from llama_keras.text import corruption as module
from llama_keras.text.corruption import (
    CORRUPTIONS,
    NoiseVocabulary,
    RandomDeletion,
    RandomMasking,
    SpanCorruption,
    corruption_config,
    get_corruption,
)
from tests.text import noise_by_hand as by_hand

QUICK = settings(max_examples=60, deadline=None)
SIZE, MASK, PROTECTED, SENTINELS = 50, 49, (0, 1, 7), (45, 46)
VOCABULARY = NoiseVocabulary(
    size=SIZE, mask_id=MASK, protected_ids=PROTECTED, sentinel_ids=SENTINELS, pad_id=0
)
OTHERS = [id_ for id_ in range(SIZE) if id_ not in (MASK, *PROTECTED, *SENTINELS)]
CASES = [
    RandomMasking(rate=0.3, mask_rate=0.5, random_rate=0.3, seed=3),
    RandomMasking(rate=1.0, mask_rate=1.0, random_rate=0.0),
    RandomMasking(rate=0.2, mask_rate=0.0, random_rate=1.0),
    RandomMasking(rate=0.0),
    RandomDeletion(rate=0.4, seed=-1),
    RandomDeletion(rate=1.0),
    RandomDeletion(rate=0.0),
    SpanCorruption(rate=0.3, mean_length=2.5, seed=9),
    SpanCorruption(rate=0.45, mean_length=1.0),  # turns its state over
    SpanCorruption(rate=0.4, mean_length=1.5, marker="sentinel"),
    SpanCorruption(rate=0.0),
]
ROWS = st.lists(st.lists(st.integers(0, 44), max_size=12), min_size=1, max_size=5)
INDICES = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=5, max_size=5)
FIELDS = module.Corrupted._fields


def expected(corruption, ids, index):
    row = by_hand.Row(ids, seed=corruption.seed, index=index, protected=PROTECTED)
    if isinstance(corruption, RandomMasking):
        return by_hand.masked(
            row,
            rate=corruption.rate,
            mask_rate=corruption.mask_rate,
            random_rate=corruption.random_rate,
            mask_id=MASK,
            others=OTHERS,
        )
    if isinstance(corruption, RandomDeletion):
        return by_hand.with_deletions(row, rate=corruption.rate)
    return by_hand.with_spans(
        row,
        rate=corruption.rate,
        mean_length=corruption.mean_length,
        marks=SENTINELS if corruption.marker == "sentinel" else MASK,
    )


@functools.cache
def graph_of_ragged(corruption):
    """Gives the corruption as a graph for rows of all shapes: run by itself it is slow."""
    specs = [tf.RaggedTensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int64)]

    @tf.function(input_signature=specs)
    def run(ids, index):
        return corruption(ids, index=index, vocabulary=VOCABULARY)

    return run


@functools.cache
def graph_of_padded(corruption):
    specs = [
        tf.TensorSpec([None, None], tf.int32),
        tf.TensorSpec([None, None], tf.bool),
        tf.TensorSpec([None], tf.int64),
    ]

    @tf.function(input_signature=specs)
    def run(ids, mask, index):
        return corruption(ids, padding_mask=mask, index=index, vocabulary=VOCABULARY)

    return run


def ragged(rows):
    make: Any = tf.RaggedTensor  # TensorFlow's type stubs lack its constructors
    return make.from_row_lengths(
        tf.constant([id_ for row in rows for id_ in row], tf.int32), [len(row) for row in rows]
    )


def corrupt(corruption, rows, index):
    """Corrupts ragged rows; gives a list of dicts, one for each row."""
    return as_dicts(graph_of_ragged(corruption)(ragged(rows), tf.constant(index, tf.int64)))


def as_dicts(found):
    columns = [part.to_list() for part in found]
    return [dict(zip(FIELDS, values, strict=True)) for values in zip(*columns, strict=True)]


def padded(rows, *, width, left):
    ids, mask = np.zeros((len(rows), width), "int32"), np.zeros((len(rows), width), bool)
    for line, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[line, place], mask[line, place] = row, True
    return ids, mask


@pytest.mark.parametrize("corruption", CASES, ids=str)
@QUICK
@given(rows=ROWS, indices=INDICES)
def test_rows_equal_those_by_hand(corruption, rows, indices):
    index = indices[: len(rows)]
    for row, at, found in zip(rows, index, corrupt(corruption, rows, index), strict=True):
        ids, chosen, places = expected(corruption, row, at)
        assert found == {
            "token_ids": ids,
            "padding_mask": [True] * len(ids),
            "source_positions": places,
            "targets": row,
            "target_mask": [True] * len(row),
            "prediction_mask": [place in chosen for place in range(len(row))],
        }


@pytest.mark.parametrize("corruption", CASES, ids=str)
@QUICK
@given(rows=ROWS, indices=INDICES, more=st.integers(0, 4), left=st.booleans())
def test_padding_changes_nothing_but_the_places(corruption, rows, indices, more, left):
    index = indices[: len(rows)]
    width = max(map(len, rows)) + more
    ids, mask = padded(rows, width=width, left=left)
    found = graph_of_padded(corruption)(ids, mask, tf.constant(index, tf.int64))._asdict()
    found = {name: part.numpy() for name, part in found.items()}
    assert {part.shape for part in found.values()} == {ids.shape}
    assert (found["targets"] == ids).all() and (found["target_mask"] == mask).all()
    assert not (found["prediction_mask"] & ~mask).any()
    assert (found["source_positions"][~found["padding_mask"]] == -1).all()
    for line, alone in enumerate(corrupt(corruption, rows, index)):
        shift = width - len(rows[line]) if left else 0
        there = found["padding_mask"][line]
        assert found["token_ids"][line][there].tolist() == alone["token_ids"]
        places = [place + shift for place in alone["source_positions"]]
        assert found["source_positions"][line][there].tolist() == places
        assert found["prediction_mask"][line][mask[line]].tolist() == alone["prediction_mask"]
        if not isinstance(corruption, RandomMasking):
            assert there[: len(places)].all()  # closed up to the left
            assert (found["token_ids"][line][~there] == VOCABULARY.pad_id).all()


@pytest.mark.parametrize("corruption", CASES, ids=str)
@QUICK
@given(rows=ROWS, indices=INDICES)
def test_what_is_promised_of_every_row(corruption, rows, indices):
    index = indices[: len(rows)]
    for row, found in zip(rows, corrupt(corruption, rows, index), strict=True):
        eligible = [id_ not in PROTECTED for id_ in row]
        chosen, places = np.array(found["prediction_mask"], bool), found["source_positions"]
        assert not (chosen & ~np.array(eligible, bool)).any()  # protected ids stay
        assert places == sorted(set(places))
        if corruption.rate == 0:
            assert found["token_ids"] == row
        elif not (isinstance(corruption, RandomDeletion) and len(row) == 1):
            assert chosen.any() == any(eligible)
        assert bool(found["token_ids"]) == bool(row)
        # What was not chosen is still there, in its order.
        kept = [(id_, at) for id_, at in zip(found["token_ids"], places, strict=True)]
        assert [pair for pair in kept if not chosen[pair[1]]] == [
            (id_, at) for at, id_ in enumerate(row) if not chosen[at]
        ]


@pytest.mark.parametrize("corruption", CASES, ids=str)
def test_the_same_with_and_without_a_graph(corruption):
    rows, index = [[2, 3, 7, 9, 5] * 3, [], [1], [4, 6]], [5, 2**62, -1, 0]
    options = {"index": tf.constant(index, tf.int64), "vocabulary": VOCABULARY}
    assert as_dicts(corruption(ragged(rows), **options)) == corrupt(corruption, rows, index)
    ids, mask = padded(rows, width=16, left=False)
    found = graph_of_padded(corruption)(ids, mask, options["index"])
    for one, other in zip(corruption(ids, padding_mask=mask, **options), found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("corruption", CASES[::2], ids=str)
def test_the_same_noise_whatever_the_batch_the_order_and_the_worker(corruption):
    rows = [[2 + (3 * line + at) % 40 for at in range(line % 9)] for line in range(40)]
    ids, mask = padded(rows, width=9, left=False)
    dataset = tf.data.Dataset.from_tensor_slices((ids, mask, np.arange(40, dtype="int64")))

    def noise(ids, mask, index):
        return corruption(ids, padding_mask=mask, index=index, vocabulary=VOCABULARY)

    def by_index(dataset):
        found = {}
        for batch, index in dataset:
            for line, at in enumerate(index.numpy()):
                found[int(at)] = [part[line].numpy().tolist() for part in batch]
        return [found[at] for at in range(40)]

    def run(dataset, size):
        batches = dataset.batch(size)
        return by_index(batches.map(lambda i, m, x: (noise(i, m, x), x), num_parallel_calls=2))

    expected = run(dataset, 40)
    assert run(dataset, 7) == expected
    assert run(dataset.shuffle(40, seed=1), 3) == expected
    assert run(dataset.shard(2, 0).concatenate(dataset.shard(2, 1)), 1) == expected


def test_seed_and_index_give_other_noise():
    rows = [list(range(10, 40))] * 3
    first = corrupt(RandomMasking(), rows, [0, 1, 0])
    assert first[0] == first[2] != first[1]
    assert corrupt(RandomMasking(seed=1), rows, [0, 1, 0])[0] != first[0]


def shares(corruption, *, length, rows=4000):
    """For each place how often it was chosen, of rows without protected ids."""
    ids = np.full((rows, length), 10, "int32")
    found = corruption(ids, index=np.arange(rows), vocabulary=VOCABULARY)
    return found, found.prediction_mask.numpy()


def assert_near(found, *, expected, count):
    error = (expected * (1 - expected) / count) ** 0.5
    assert abs(found - expected) <= 5 * error, (found, expected, error)


@pytest.mark.parametrize("length", [1, 2, 5, 60])
@pytest.mark.parametrize("rate", [0.05, 0.15, 0.5])
@pytest.mark.parametrize("kind", [RandomMasking, RandomDeletion])
def test_rate_is_exact_in_expectation(kind, rate, length):
    _, chosen = shares(kind(rate=rate), length=length)
    share = rate + (1 - rate) ** length / length
    if kind is RandomDeletion:
        share -= rate**length / length if length > 1 else 1.0
    for place in {0, length // 2, length - 1}:
        assert_near(chosen[:, place].mean(), expected=share, count=len(chosen))
    assert abs(chosen.mean() - share) < 5 * (share / chosen.size) ** 0.5 + 1e-12


def test_berts_eighty_ten_ten():
    found, chosen = shares(RandomMasking(rate=0.5), length=60)
    ids = found.token_ids.numpy()[chosen]
    total = ids.size
    assert_near((ids == MASK).mean(), expected=0.8, count=total)
    # One in 44 random tokens happens to be the token that was there.
    assert_near((ids == 10).mean(), expected=0.1 + 0.1 / len(OTHERS), count=total)
    others = ids[(ids != MASK) & (ids != 10)]
    assert set(others.tolist()) == set(OTHERS) - {10}
    counts = np.bincount(others, minlength=SIZE)[[id_ for id_ in OTHERS if id_ != 10]]
    assert abs(counts - counts.mean()).max() < 5 * counts.mean() ** 0.5


def test_plain_masking_of_the_article():
    found, chosen = shares(RandomMasking(rate=0.3, mask_rate=1, random_rate=0), length=20)
    assert (found.token_ids.numpy() == np.where(chosen, MASK, 10)).all()


@pytest.mark.parametrize(
    ("rate", "mean_length"), [(0.15, 3.0), (0.5, 3.0), (0.3, 1.0), (0.5, 1.0), (0.6, 1.5)]
)
def test_spans_hide_the_rate_and_have_the_length(rate, mean_length):
    found, hidden = shares(SpanCorruption(rate=rate, mean_length=mean_length), length=200, rows=500)
    # Neighbours hang together, so the error of a mean over places is larger than for coins.
    assert abs(hidden.mean() - rate) < 0.01
    for place in (0, 1, 100, 199):
        assert_near(hidden[:, place].mean(), expected=rate, count=len(hidden))
    edges = np.diff(np.pad(hidden, [(0, 0), (1, 1)]).astype(int), axis=1)
    starts, ends = np.argwhere(edges == 1), np.argwhere(edges == -1)
    whole = (starts[:, 1] > 0) & (ends[:, 1] < 200)  # the ends of a row cut spans
    lengths = (ends - starts)[whole, 1]
    # Long spans are cut more often: a few thousandths.
    assert abs(lengths.mean() / mean_length - 1) < 0.05
    assert (found.token_ids.numpy() == MASK).sum() == len(starts)


def test_sentinels_stand_for_the_first_spans_in_their_order():
    ids = [10, 11, 12, 13, 14, 15, 16, 17, 18, 19] * 4
    found = corrupt(SpanCorruption(rate=0.4, mean_length=2.0, marker="sentinel"), [ids], [2])[0]
    marks = [id_ for id_ in found["token_ids"] if id_ in SENTINELS]
    assert marks == list(SENTINELS)
    last = found["source_positions"][found["token_ids"].index(SENTINELS[-1])]
    rest = found["source_positions"].index(last) + 1
    # No sentinel is left for what follows the last span.
    assert found["token_ids"][rest:] == ids[found["source_positions"][rest] :]


def test_graph_with_unknown_shapes_and_empty_batches():
    for corruption in CASES:
        run = graph_of_padded(corruption)
        for shape in ((0, 0), (0, 3), (2, 0), (2, 3)):
            found = run(
                np.zeros(shape, "int32"), np.zeros(shape, bool), np.zeros(shape[0], "int64")
            )
            assert {tuple(part.shape) for part in found} == {shape}
            assert not found.padding_mask.numpy().any()


@pytest.mark.parametrize("corruption", CASES, ids=str)
def test_every_corruption_comes_back_from_its_config(corruption):
    config = corruption_config(corruption)
    for again in (config, json.loads(json.dumps(config)), yaml.safe_load(yaml.safe_dump(config))):
        assert get_corruption(again) == corruption
    assert get_corruption(corruption) is corruption


def test_names_give_the_defaults():
    assert [get_corruption(name) for name in CORRUPTIONS] == [
        RandomMasking(rate=0.15, mask_rate=0.8, random_rate=0.1),
        RandomDeletion(rate=0.15),
        SpanCorruption(rate=0.15, mean_length=3.0, marker="mask"),
    ]
    assert get_corruption(None) is None


def test_vocabulary_of_a_tokenizer(tiny):
    vocabulary = NoiseVocabulary.of(tiny, mask_id=300)
    assert vocabulary.size == 301 and vocabulary.pad_id == tiny.pad_id
    assert set(vocabulary.protected_ids) == {*tiny.special_tokens.values()} | {tiny.pad_id}
    assert NoiseVocabulary.of(tiny).size == tiny.vocabulary_size


MASKING = {"name": "random_masking"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomMasking(rate=1.5), "random_masking: rate must be a number from 0 to 1"),
        (lambda: RandomMasking(rate=float("nan")), "received nan"),
        (lambda: get_corruption(dict(MASKING, mask_rate="all")), "mask_rate must be a number"),
        (lambda: RandomMasking(mask_rate=0.8, random_rate=0.3), "more than 1 together"),
        (lambda: RandomDeletion(rate=True), "random_deletion: rate must be a number"),
        (lambda: get_corruption(dict(MASKING, seed=1.5)), "seed must be a whole number"),
        (lambda: SpanCorruption(mean_length=0.5), "mean_length must be 1 or more"),
        (lambda: SpanCorruption(rate=0.8, mean_length=2.0), "at most 0.667 .*rate=0.8"),
        (
            lambda: get_corruption({"name": "span_corruption", "marker": "*"}),
            r"one of \['mask', 'sentinel'\]",
        ),
        (lambda: get_corruption("shuffle"), "no corruption 'shuffle'; expected .*random_masking"),
        (lambda: get_corruption({"name": "random_deletion", "p": 1}), "no setting 'p'"),
        (lambda: NoiseVocabulary(size=5, mask_id=5), "5 ids has no id 5"),
        (lambda: NoiseVocabulary(size=5, protected_ids=(-1,)), "no id -1"),
    ],
)
def test_wrong_settings_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


PLAIN = NoiseVocabulary(size=9)
RAGGED = tf.ragged.constant([[1, 2]])


@pytest.mark.parametrize(
    ("noise", "arguments", "message"),
    [
        (RandomMasking(), {"vocabulary": PLAIN}, "random_masking needs a mask token"),
        (SpanCorruption(), {"vocabulary": PLAIN}, "span_corruption needs a mask token"),
        (SpanCorruption(marker="sentinel"), {"vocabulary": PLAIN}, "needs sentinels"),
        (
            RandomMasking(mask_rate=0),
            {"vocabulary": NoiseVocabulary(size=2, mask_id=0, protected_ids=(1,))},
            "None of the 2 ids",
        ),
        (RandomDeletion(), {"token_ids": [1, 2]}, "token_ids must have 2 axes"),
        (RandomDeletion(), {"padding_mask": [True]}, "padding_mask must have 2 axes"),
        (RandomDeletion(), {"index": 0}, "index must have 1 axes"),
        (RandomDeletion(), {"token_ids": RAGGED, "padding_mask": [[1, 1]]}, "no padding"),
    ],
)
def test_wrong_rows_are_named(noise, arguments, message):
    arguments = {"token_ids": [[1, 2]], "index": [0], "vocabulary": VOCABULARY, **arguments}
    with pytest.raises(InputError, match=message):
        noise(arguments.pop("token_ids"), **arguments)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_docstring_example_runs(name):
    text = inspect.getdoc(CORRUPTIONS[name]) or ""
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(code.splitlines()) <= 12
    exec(code, dict(vars(module)))
