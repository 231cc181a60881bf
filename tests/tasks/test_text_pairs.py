from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from llama_keras.errors import InputError
from llama_keras.tasks import TextClassifier
from llama_keras.training.fine_tuning import Full

FIRSTS = ["is it good?", "", "日本 🙂?", "who?"]
SECONDS = ["it is.", "no question", "", "long " * 30]
LABELS = ["yes", "no", "no", "yes"]
PAIRS = list(zip(FIRSTS, SECONDS, strict=True))


@pytest.fixture
def make_pairs(make_classifier):
    return lambda **arguments: make_classifier(labels=["no", "yes"], pairs=True, **arguments)


@pytest.fixture(scope="module")
def equality_data():
    """Pairs that are labelled by whether both texts are the same: no single text tells."""
    words = ["aaa", "bbb", "ccc"]
    pairs = [(a, b) for a in words for b in words for _ in range(1 + (a == b))] * 4
    return pairs, ["yes" if a == b else "no" for a, b in pairs]


def scores(model, pairs):
    return np.array([row["scores"]["yes"] for row in model.predict(pairs, verbose=0)])


def test_a_model_of_pairs_learns_from_both_texts(make_pairs, equality_data, tmp_path):
    model = make_pairs(strategy=Full(learning_rate=1e-2))
    model.fit(*equality_data, validation_data=equality_data, epochs=20, batch_size=16, verbose=0)
    assert model.evaluate(*equality_data, verbose=0)["accuracy"] > 0.9
    swapped = scores(model, [("aaa", "aaa"), ("aaa", "bbb"), ("ccc", "bbb"), ("ccc", "ccc")])
    assert (swapped > 0.5).tolist() == [True, False, False, True]
    model.save(tmp_path / "model.keras")
    loaded = TextClassifier.load(tmp_path / "model.keras")
    assert loaded.pairs and loaded.get_config() == model.get_config()
    assert np.abs(scores(loaded, PAIRS) - scores(model, PAIRS)).max() < 1e-6


def test_all_forms_of_pairs_give_the_same(make_pairs):
    model = make_pairs()
    expected, loss = scores(model, PAIRS), model.evaluate(PAIRS, LABELS, verbose=0)
    forms = [
        [list(pair) for pair in PAIRS],  # rows: what stands outside is a list
        [tuple(text.encode() for text in pair) for pair in PAIRS],
        np.array(PAIRS),
        (FIRSTS, SECONDS),  # columns: what stands outside is a tuple
        (tuple(FIRSTS), tuple(SECONDS)),
        (np.array(FIRSTS), np.array(SECONDS, object)),
    ]
    for form in forms:
        assert (scores(model, form) == expected).all()
        assert model.evaluate(form, LABELS, verbose=0) == pytest.approx(loss)
    numbers = [model.labels.index(label) for label in LABELS]
    dataset = tf.data.Dataset.from_tensor_slices(((FIRSTS, SECONDS), numbers))
    assert model.evaluate(dataset, verbose=0) == pytest.approx(loss)
    assert model.evaluate(dataset.batch(3), verbose=0) == pytest.approx(loss)
    unlabelled = tf.data.Dataset.from_tensor_slices(((FIRSTS, SECONDS),))
    assert (scores(model, unlabelled) == expected).all()
    assert model.predict(PAIRS[0], verbose=0) == model.predict([PAIRS[0]], verbose=0)
    assert model.predict([], verbose=0) == model.predict(([], []), verbose=0) == []


def test_two_pairs_as_columns_and_as_rows_differ(make_pairs):
    model = make_pairs()
    columns = scores(model, (["a", "b"], ["c", "d"]))
    rows = scores(model, [["a", "b"], ["c", "d"]])
    assert (columns == scores(model, [("a", "c"), ("b", "d")])).all()
    assert np.abs(columns - rows).max() > 1e-6


def test_the_row_of_a_pair_is_first_separator_second(make_pairs):
    model = make_pairs()
    (row,) = model.token_rows([("ab", "c")]).token_ids
    a, b, c = model.tokenizer.encode("abc")
    assert row == [a, b, model.tokenizer.eos_id, c]


def test_long_pairs_are_shortened_at_the_longer_text_and_told(make_pairs, caplog):
    model = make_pairs(max_sequence_length=16)
    cut = scores(model, [("who?", "x" * 40), ("y" * 40, "me"), ("a", "b")])
    assert "2 of 3 pairs were shortened to 16 tokens" in caplog.text
    fits = scores(model, [("who?", "x" * 11), ("y" * 13, "me"), ("a", "b")])
    assert np.abs(cut - fits).max() < 1e-6


def test_both_texts_are_cleaned(make_pairs, caplog):
    plain, cleaning = make_pairs(), make_pairs(cleaning=["lower", "remove_punctuation"])
    assert (
        scores(cleaning, [("A!", "B"), ("?", "X")]) == scores(plain, [("a ", "b"), (" ", "x")])
    ).all()
    assert not cleaning.token_rows([("a", "b")]).labels


def test_a_linear_probe_of_pairs(make_pairs, equality_data):
    model = make_pairs(strategy="linear_probe")
    model.fit(*equality_data, validation_data=equality_data, verbose=0)
    assert set(model.predict([("aaa", "aaa")], verbose=0)[0]["scores"]) == {"no", "yes"}


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ("text", "Received 'text'; expected a tuple of two lists"),
        (["a", "b"], "Pair number 0 is 'a'; expected a tuple of two lists"),
        ([("a", "b"), ("c",)], "Pair number 1 is"),
        ([("a", 3)], "Pair number 0 is"),
        (
            [FIRSTS, SECONDS],
            r"Pair number 0 is .*expected a tuple of two lists \(firsts, seconds\)",
        ),
        ((["a"], ["b"], ["c"]), "a tuple of 3"),
        ((["a", "b"], ["c"]), "2 first texts but 1 second ones"),
        ((["a"], 7), "a tuple that holds 7"),
        ([(b"\xff", "b")], "Pair number 0 is not UTF-8"),
        (np.array(["a", "b"]), "Pair number 0 is"),
    ],
)
def test_what_is_no_pair_is_named(make_pairs, x, message):
    with pytest.raises(InputError, match=message):
        make_pairs().predict(x, verbose=0)


def test_datasets_of_another_form_are_named(make_pairs):
    model = make_pairs()
    two_texts = tf.data.Dataset.from_tensor_slices((FIRSTS, SECONDS))
    for dataset in (two_texts, tf.data.Dataset.from_tensor_slices(FIRSTS)):
        with pytest.raises(InputError, match=r"expected \(\(first, second\), label\)"):
            model.predict(dataset, verbose=0)
    endless = tf.data.Dataset.from_tensor_slices(((FIRSTS, SECONDS), [0, 1, 1, 0])).repeat()
    with pytest.raises(InputError, match="never ends"):
        model.fit(endless)


def test_wrong_labels_and_no_pairs_are_named(make_pairs):
    model = make_pairs()
    with pytest.raises(InputError, match="4 texts but 1 labels"):
        model.fit(PAIRS, ["yes"])
    with pytest.raises(InputError, match="data set is empty"):
        model.fit([], [])
    with pytest.raises(InputError, match="leaves no room for a pair"):
        make_pairs(max_sequence_length=2).predict(PAIRS)


@pytest.mark.parametrize(
    "x",
    [
        PAIRS,
        (FIRSTS, SECONDS),
        np.array(PAIRS),
        tf.data.Dataset.from_tensor_slices(((FIRSTS, SECONDS), [0] * 4)),
    ],
)
def test_a_model_of_single_texts_refuses_pairs(make_classifier, x):
    with pytest.raises(InputError, match="make it with pairs=True"):
        make_classifier().predict(x, verbose=0)


def test_validation_data_that_are_pairs_are_refused_by_a_model_of_texts(make_classifier):
    with pytest.raises(InputError, match="number 0 is .*expected a string"):
        make_classifier().fit(["a"], ["positive"], validation_data=(PAIRS, ["positive"] * 4))


def test_token_features_go_through_plain_keras(make_pairs):
    features = {
        "token_ids": np.array([[5, 2, 7], [8, 2, 0]]),
        "padding_mask": np.array([[1, 1, 1], [1, 1, 0]]),
    }
    model = make_pairs()
    assert model.predict(features, verbose=0).shape == (2, 2)
    model.compile()
    expected = model.evaluate(features, np.array([0, 1]), verbose=0)
    slices: Any = tf.data.Dataset.from_tensor_slices
    dataset = slices((features, [0, 1])).batch(2)
    assert model.evaluate(dataset, verbose=0) == pytest.approx(expected)
