from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from llama_keras.errors import InputError
from llama_keras.tasks import Embedder
from llama_keras.training.fine_tuning import Full, Lora
from tests.marks import slow

TEXTS = ["A lovely day.", "", "今天天气很好", "日本 🙂 naïve", "long " * 30]
PAIRS = [
    ("the dog sleeps", "狗在睡觉"),
    ("the weather is fine", "天气很好"),
    ("I drink tea", "我喝茶"),
    ("where is the station", "车站在哪里"),
    ("good night", "晚安"),
    ("she reads a book", "她在看书"),
    ("two red apples", "两个红苹果"),
    ("the train is late", "火车晚点了"),
]
FAST = Full(learning_rate=3e-3)


@pytest.fixture
def make():
    def build(**arguments):
        keras.utils.set_random_seed(0)
        return Embedder.from_preset("llama-tiny", **arguments)

    return build


def vectors(model, texts, **kwargs):
    return model.predict(texts, verbose=0, **kwargs)


@pytest.mark.parametrize(
    ("arguments", "pooling"),
    [({}, "last"), ({"backbone_arguments": {"attention_mask": "bidirectional"}}, "mean")],
)
def test_vectors_have_length_one_whatever_the_batch_and_the_padding_side(make, arguments, pooling):
    model = make(**arguments)
    assert model.pooling.mode == pooling
    found = vectors(model, TEXTS)
    assert found.dtype == np.float32 and found.shape == (5, model.backbone.config.hidden_dim)
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-5
    alone = np.concatenate([vectors(model, [text]) for text in TEXTS])
    assert np.abs(found - alone).max() < 1e-5
    assert np.abs(found - vectors(model, TEXTS, batch_size=2)).max() < 1e-5
    row = model.token_rows(TEXTS[:1]).token_ids[0]
    left = {"token_ids": np.array([[0] * 3 + row]), "padding_mask": [[0] * 3 + [1] * len(row)]}
    left = {name: np.asarray(value, "int32") for name, value in left.items()}
    assert np.abs(model(left).numpy() - found[:1]).max() < 1e-5


def test_an_empty_text_has_the_vector_of_a_lone_padding_token(make):
    model = make()
    lone = {"token_ids": np.array([[model.tokenizer.pad_id]]), "padding_mask": np.array([[1]])}
    assert np.abs(vectors(model, [""]) - model(lone).numpy()).max() < 1e-6
    assert vectors(model, []).shape == (0, model.dimensions)
    assert (vectors(model, "one") == vectors(model, ["one"])).all()
    dataset = tf.data.Dataset.from_tensor_slices(TEXTS)
    assert np.abs(vectors(model, dataset) - vectors(model, TEXTS)).max() < 1e-6


def test_short_vectors_are_the_beginning_of_long_ones(make):
    plain = vectors(make(normalize=False), TEXTS)
    assert np.abs(np.linalg.norm(plain, axis=1) - 1).max() > 1e-2
    short = vectors(make(dimensions=8), TEXTS)
    begin = plain[:, :8]
    assert np.abs(short - begin / np.linalg.norm(begin, axis=1, keepdims=True)).max() < 1e-5


def test_an_inner_layer_is_that_of_the_truncated_backbone(make, tmp_path):
    model, whole = make(layer=1), make()
    whole.backbone = whole.backbone.truncated(1)
    assert model.backbone.config.num_layers == 1
    assert np.abs(vectors(model, TEXTS) - vectors(whole, TEXTS)).max() < 1e-6
    model.save(tmp_path / "model.keras")
    loaded = Embedder.load(tmp_path / "model.keras")
    assert loaded.backbone.config.num_layers == 1
    assert np.abs(vectors(loaded, TEXTS) - vectors(model, TEXTS)).max() < 1e-6


def test_similarity_is_the_cosine_of_texts_or_vectors(make):
    model = make(normalize=False)
    found = vectors(model, TEXTS)
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    assert np.abs(model.similarity(TEXTS, TEXTS[:2]) - unit @ unit[:2].T).max() < 1e-5
    assert np.abs(model.similarity(found) - unit @ unit.T).max() < 1e-5
    with pytest.raises(InputError, match="do not compare"):
        model.similarity(found, found[:, :3])


def test_search_gives_the_nearest_first(make):
    model = make()
    (answers,) = model.search(["I drink tea"], ["other", "I drink tea", "words"], top_k=2)
    assert [answer["index"] for answer in answers][0] == 1 and len(answers) == 2
    assert answers[0]["score"] == pytest.approx(1, abs=1e-5)
    assert answers[0]["score"] >= answers[1]["score"]


@pytest.mark.parametrize("strategy", [FAST, *slow(Lora(rank=4, learning_rate=1e-2))])
def test_pairs_come_closer_and_survive_saving(make, tmp_path, strategy):
    model = make(strategy=strategy)
    english, chinese = [list(column) for column in zip(*PAIRS, strict=True)]
    before = np.diag(model.similarity(english, chinese)).mean()
    gap = before - model.similarity(english, chinese).mean()
    history = model.fit(PAIRS, validation_data=PAIRS, epochs=30, batch_size=8, verbose=0).history
    assert history["loss"][-1] < 0.3 * history["loss"][0]
    assert history["val_retrieval_accuracy"][-1] == 1
    after = model.similarity(english, chinese)
    assert np.diag(after).mean() - after.mean() > gap + 0.3
    assert (after.argmax(axis=1) == np.arange(8)).all()
    measured = model.evaluate(PAIRS, verbose=0)
    assert set(measured) == {"loss", "retrieval_accuracy"}
    assert measured["loss"] == pytest.approx(history["val_loss"][-1], rel=1e-3)
    model.save(tmp_path / "model.keras")
    loaded = Embedder.load(tmp_path / "model.keras")
    assert np.abs(vectors(loaded, TEXTS) - vectors(model, TEXTS)).max() < 1e-6
    assert loaded.get_config()["strategy"] == model.get_config()["strategy"]


def test_settings_survive_saving(make, tmp_path):
    settings = {"pooling": "mean", "normalize": False, "dimensions": 16, "temperature": 0.2}
    model = make(**settings, max_sequence_length=12, cleaning=["lower"])
    model.save(tmp_path / "model.keras")
    loaded = Embedder.load(tmp_path / "model.keras")
    config = loaded.get_config()
    assert {name: config[name] for name in settings} == settings
    assert config["max_sequence_length"] == 12
    assert (vectors(loaded, ["A DAY"]) == vectors(model, ["a day"])).all()


@pytest.mark.slow
def test_triples_push_their_negatives_away(make):
    triples = [(a, p, PAIRS[(i + 1) % 8][1] + "吗") for i, (a, p) in enumerate(PAIRS)]
    model = make(strategy=FAST)
    model.fit(triples, epochs=25, batch_size=4, verbose=0)
    own, others = (
        np.diag(model.similarity([t[0] for t in triples], [t[column] for t in triples]))
        for column in (1, 2)
    )
    assert (own > others).all()
    one = make(strategy=FAST)
    one.fit(triples[:1], epochs=1, batch_size=1, verbose=0)  # its negative is enough


def test_single_texts_learn_under_dropout(make):
    model = make(strategy=FAST, backbone_arguments={"dropout": 0.1})
    texts = [text for pair in PAIRS for text in pair]
    before = model.similarity(texts)
    history = model.fit(texts, epochs=6, batch_size=16, verbose=0).history
    assert 0 < history["loss"][-1] < history["loss"][0]
    others = ~np.eye(16, dtype=bool)
    assert model.similarity(texts)[others].mean() < before[others].mean()
    for measure in (
        lambda: model.evaluate(texts, verbose=0),
        lambda: model.fit(texts, validation_data=texts, verbose=0),
    ):
        with pytest.raises(InputError, match="evaluate on pairs"):
            measure()


def test_texts_with_labels_gather(make, toy_data):
    model = make(strategy=FAST)
    model.fit(*toy_data, validation_data=toy_data, epochs=4, batch_size=16, verbose=0)
    assert model.evaluate(*toy_data, verbose=0)["retrieval_accuracy"] > 0.9
    same = np.array(toy_data[1])[:, None] == np.array(toy_data[1])[None]
    cosines = model.similarity(toy_data[0])
    assert cosines[same].mean() > cosines[~same].mean() + 0.3


@pytest.mark.slow
def test_the_order_is_a_function_of_the_seed(make):
    def losses(seed):
        model = make(strategy=FAST)
        return model.fit(PAIRS, epochs=2, batch_size=3, seed=seed, verbose=0).history["loss"]

    assert losses(1) == losses(1) != losses(2)


COLUMNS: Any = {"positive": [p for _, p in PAIRS], "anchor": [a for a, _ in PAIRS]}


@pytest.mark.parametrize(
    "data",
    [
        [{"anchor": a, "positive": p} for a, p in PAIRS],
        [list(pair) for pair in PAIRS],
        np.array(PAIRS),
        tf.data.Dataset.from_tensor_slices(tuple(map(list, zip(*PAIRS, strict=True)))),
        tf.data.Dataset.from_tensor_slices(COLUMNS),
    ],
    ids=["dicts", "lists", "array", "dataset", "dataset of dicts"],
)
def test_all_forms_of_pairs_are_the_same(make, data):
    model = make()
    found, expected = model.example_rows(data), model.example_rows(PAIRS)
    assert [view.token_ids for view in found.views] == [v.token_ids for v in expected.views]
    assert (found.numbers == expected.numbers).all()


def test_a_dataset_of_texts_and_numbers_has_labels(make):
    dataset = tf.data.Dataset.from_tensor_slices((["a b", "c", "d e"], [7, 3, 7]))
    rows = make().example_rows(dataset)
    assert len(rows.views) == 1 and rows.numbers.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([], None, "data set is empty"),
        ([("a", "b"), ("c",)], None, r"Example 1 is \('c',\); expected \(anchor, positive\)"),
        ([("a", "b"), ("c", "d", "e")], None, "Example 1 has 3 texts but example 0 has 2"),
        ([("a", "b"), ("c", 3)], None, "Example 1 is"),
        ([("a", "b"), "c"], None, "Example 1 is"),
        ([{"anchor": "a"}, {"anchor": "b"}], None, "Example 0 is"),
        ([("a", "b"), ("c", " ")], None, "1 of 2 examples have an empty positive.* number 1"),
        ([("a", "b")], None, "at least two different examples"),
        ([("a", "b"), ("c", "b")], None, "at least two different examples"),
        ([("a", "b"), ("c", "d")], [0, 1], "Pairs have no labels"),
        ([("a", "b", "b")], None, "negative that equals"),
        (["a", "b"], None, r"backbone_arguments=\{'dropout': 0.1\}"),
        (["a", "b"], [1], "2 texts but 1 labels"),
        (["a", "b"], [1, 2], "one that two texts have"),
        (["a", "b"], [1, 1], "two or more"),
    ],
)
def test_bad_examples_are_named(make, x, y, message):
    with pytest.raises(InputError, match=message):
        make().fit(x, y, verbose=0)


def test_bad_arguments_are_named(make):
    for arguments, message in (
        ({"dimensions": 65}, "dimensions must lie in 2 … 64; received 65"),
        ({"temperature": 0}, "temperature must be positive"),
        ({"layer": 9}, "num_layers must lie in"),
        ({"pooling": "magic"}, "mean"),
    ):
        with pytest.raises(InputError, match=message):
            make(**arguments)
    model = make()
    with pytest.raises(InputError, match="no negatives"):
        model.fit(PAIRS, batch_size=1, verbose=0)
    with pytest.raises(InputError, match="pairs are for fit"):
        model.predict(PAIRS, verbose=0)
    with pytest.raises(InputError, match="linear_probe"):
        make(strategy="linear_probe").fit(PAIRS, verbose=0)


def test_long_texts_are_cut_and_said(make, caplog):
    model = make(max_sequence_length=8)
    cut = vectors(model, ["good day and more words than fit"])
    assert "1 of 1 texts were cut to 8 tokens" in caplog.text
    assert np.abs(cut - vectors(model, ["good day and other ends"[:8]])).max() < 1e-5
