import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from llama_keras.errors import InputError
from llama_keras.tasks import TokenClassifier
from llama_keras.tasks.tagging import check_tags
from llama_keras.training.fine_tuning import Full, Lora
from tests.marks import slow

WORDS = [["Ann", "Lee", "is", "in", "Rome", "."], ["Bo", "left"], ["今", "天", "在", "北", "京"]]
TAGS = [
    ["B-PER", "I-PER", "O", "O", "B-LOC", "O"],
    ["B-PER", "O"],
    ["O", "O", "O", "B-LOC", "I-LOC"],
]
TEXTS = ["Ann Lee is in Rome .", "Bo left", "今天在北京"]
FOUND = [[(0, 7, "PER"), (14, 18, "LOC")], [(0, 2, "PER")], [(3, 5, "LOC")]]
SPANS = [[{"start": a, "end": b, "label": label} for a, b, label in row] for row in FOUND]
HARD = [
    "",
    " ",
    "Ann Lee\u200b is\nin 今 Rome",
    "🙂" * 5,
    "\u202eשלום Rome",
    "null \x00 Bo",
    "\ud800 Bo",
]


def make(**arguments):
    keras.utils.set_random_seed(0)
    arguments = {"labels": ["LOC", "PER"], "strategy": Full(learning_rate=3e-3), **arguments}
    return TokenClassifier.from_preset("llama-tiny", **arguments)


def spans_of(answers):
    return [[(e["start"], e["end"], e["label"]) for e in row] for row in answers]


CASES = {
    "dense": {},
    "crf": {"head": "crf", "scheme": "IOBES"},
    "bidirectional": {"head": "crf", "backbone_arguments": {"attention_mask": "bidirectional"}},
}


@pytest.fixture(
    scope="module", params=[*sorted(CASES.keys() - {"bidirectional"}), *slow("bidirectional")]
)
def fitted(request):
    model = make(**CASES[request.param])
    x, y = (WORDS, TAGS) if request.param != "crf" else (TEXTS, SPANS)
    history = model.fit(
        x * 6, y * 6, validation_data=(WORDS, TAGS), epochs=12, batch_size=6, verbose=0
    )
    return model, history.history


def test_learns_and_answers_with_places_in_the_text(fitted):
    model, history = fitted
    assert history["loss"][-1] < history["loss"][0] / 5
    assert history["val_accuracy"][-1] == 1.0
    answers = model.predict(TEXTS, verbose=0)
    assert spans_of(answers) == FOUND
    for text, row in zip(TEXTS, answers, strict=True):
        assert all(e["text"] == text[e["start"] : e["end"]] for e in row)
        assert all(0.5 < e["score"] <= 1.0 + 1e-6 for e in row)
    assert spans_of(model.predict(WORDS, verbose=0)) == FOUND


def test_both_forms_of_examples_are_the_same_rows(fitted):
    model, _ = fitted
    a, b = model.example_rows(WORDS, TAGS), model.example_rows(TEXTS, SPANS)
    assert (a.token_ids, a.labels) == (b.token_ids, b.labels)
    tagged = [[tag for tag in row if tag >= 0] for row in a.labels]
    assert [len(row) for row in tagged] == [6, 2, 5]


def test_a_unit_is_tagged_at_its_token():
    for name, kind, column in (("first", "bidirectional", 0), ("last", "causal", 2)):
        model = make(backbone_arguments={"attention_mask": kind})
        assert model.tagged_token == name
        rows = model.example_rows(["Ann"], [[{"start": 0, "end": 3, "label": "PER"}]])
        assert len(rows.token_ids[0]) == 3  # one token a letter
        assert [i for i, tag in enumerate(rows.labels[0]) if tag >= 0] == [column]


def test_loss_and_accuracy_are_over_tagged_tokens(fitted):
    model, _ = fitted
    found = model.evaluate(WORDS, TAGS, batch_size=2, verbose=0)
    rows = model.example_rows(WORDS, TAGS)
    right = losses = 0
    for ids, labels in zip(rows.token_ids, rows.labels, strict=True):
        features = {"token_ids": np.array([ids]), "padding_mask": np.ones((1, len(ids)), int)}
        scores = np.asarray(model(features))[0]
        columns = np.flatnonzero(np.array(labels) >= 0)
        tags = np.array(labels)[columns]
        best, _ = model.best_tags(scores[None, columns], np.ones((1, len(columns)), bool))
        right += (np.asarray(best)[0] == tags).sum()
        if model.head_kind == "crf":
            losses -= float(model.chain.log_likelihood(scores[None, columns], tags[None])[0])
        else:
            logs = scores[columns] - np.log(np.exp(scores[columns]).sum(-1, keepdims=True))
            losses -= logs[np.arange(len(tags)), tags].sum()
    assert found["accuracy"] == pytest.approx(right / 13)
    one_batch = model.evaluate(WORDS, TAGS, batch_size=8, verbose=0)["loss"]
    assert one_batch == pytest.approx(losses / 13, rel=1e-3, abs=1e-6)


def test_saved_file_gives_the_same_answers(fitted, tmp_path):
    model, _ = fitted
    model.save(tmp_path / "model.keras")
    loaded = TokenClassifier.load(tmp_path / "model.keras")
    texts = TEXTS + HARD
    assert spans_of(loaded.predict(texts, verbose=0)) == spans_of(model.predict(texts, verbose=0))
    assert loaded.get_config().items() >= {
        "scheme": model.scheme, "head": model.head_kind, "tagged_token": model.tagged_token
    }.items()  # fmt: skip


def test_hard_texts_give_places_that_exist(fitted):
    model, _ = fitted
    answers = model.predict(HARD, verbose=0)
    assert answers[:2] == [[], []]
    for text, row in zip(HARD, answers, strict=True):
        assert all(e["text"] == text[e["start"] : e["end"]] != "" for e in row)
    alone = [model.predict([text], verbose=0)[0] for text in HARD]
    assert spans_of(alone) == spans_of(answers)
    assert model.predict([], verbose=0) == []


@pytest.mark.parametrize("head", ["dense", "crf"])
@pytest.mark.parametrize("scheme", ["IOB2", "IOBES"])
def test_an_untrained_model_never_spells_what_is_illegal(head, scheme):
    model = make(head=head, scheme=scheme)
    emissions = np.random.default_rng(0).normal(size=(50, 7, len(model.tags))).astype("float32")
    mask = np.arange(7)[None] < np.arange(1, 51)[:, None] % 8
    tags, scores = (np.asarray(x) for x in model.best_tags(10 * emissions, mask))
    for row, real in zip(tags, mask, strict=True):
        check_tags([model.tags[tag] for tag in row[real]], scheme=scheme)
    assert ((scores[mask] > 0) & (scores[mask] <= 1 + 1e-5)).all()


def test_long_texts_are_read_in_windows(fitted):
    model, _ = fitted
    short = make(
        max_sequence_length=24,
        head=model.head_kind,
        scheme=model.scheme,
        backbone_arguments={"attention_mask": model.backbone.config.attention_mask},
    )
    short.set_weights(model.get_weights())
    text = " ".join(TEXTS[:1] * 6)
    rows = short.example_rows([text], [[]])
    assert len(rows.token_ids) > 6 and max(map(len, rows.token_ids)) == 24
    (found,) = spans_of(short.predict([text], verbose=0))
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(found))
    places = [(21 * i + 14, 21 * i + 18, "LOC") for i in range(6)]
    assert sum(place in found for place in places) >= 4
    with_stranger = spans_of(short.predict([text, "Bo left"], verbose=0))
    assert with_stranger == [found, FOUND[1]]


def test_parts_of_entities_at_a_cut_teach_nothing_and_the_lost_ones_are_counted(caplog):
    model = make(max_sequence_length=16)
    text = "a" * 14 + " " + "Ann Lee" + " " + "b" * 20
    spans = [[{"start": 15, "end": 22, "label": "PER"}]]
    rows = model.example_rows([text], spans)
    whole = [row for row in rows.labels if {3, 4} & set(row)]
    told = [record for record in caplog.records if record.name == "llama_keras"]
    assert len(whole) == 1 and not told
    long = [[{"start": 0, "end": len(text), "label": "PER"}]]
    assert model.span_report([text], long).misfits == {"cut": 1}
    rows = model.example_rows([text], long)
    assert all(set(row) == {-1} for row in rows.labels)
    assert "of 1 entities 1 cut; text 0: cut 'aaa" in caplog.text


def test_misfits_are_logged(caplog):
    model = make()
    model.example_rows(["Rome"], [[{"start": 0, "end": 2, "label": "LOC"}]])
    assert "of 1 entities 1 widened; text 0: widened 'Ro' at 0-2" in caplog.text


def test_lora_learns():
    model = make(strategy=Lora(rank=4, learning_rate=1e-2), head="crf")
    model.fit(WORDS * 6, TAGS * 6, epochs=10, batch_size=6, verbose=0)
    assert model.evaluate(WORDS, TAGS, verbose=0)["accuracy"] > 0.9
    names = {weight.path.split("/")[-2] for weight in model.trainable_weights}
    assert {"head", "chain"} <= names


def test_a_dataset_of_words_and_tags_and_token_features():
    model = make()
    pair = tuple(tf.ragged.constant(rows) for rows in (WORDS, TAGS))
    dataset = tf.data.Dataset.from_tensor_slices(pair)
    model.fit(dataset, verbose=0)
    assert model.evaluate(dataset, verbose=0).keys() == {"loss", "accuracy"}
    features = {"token_ids": np.ones((2, 3), "int32"), "padding_mask": np.ones((2, 3), "int32")}
    assert model.predict(features, verbose=0).shape == (2, 3, 5)


def test_cleaning_that_keeps_places():
    model = make(cleaning=["lower"])
    plain = make()
    rows, lower = (
        model.example_rows(TEXTS, SPANS),
        plain.example_rows([t.lower() for t in TEXTS], SPANS),
    )
    assert (rows.token_ids, rows.labels) == (lower.token_ids, lower.labels)
    answers = model.predict(["ANN Lee"], verbose=0)[0]
    assert all(e["text"] in "ANN Lee" for e in answers)
    with pytest.raises(InputError, match="cleaning must keep every character"):
        make(cleaning=["collapse_whitespace"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": []}, "labels must be one or more"),
        ({"labels": ["A", "A"]}, "labels must be one or more"),
        ({"scheme": "IOB1"}, r"scheme='IOB1' is not known; expected one of \['IOB2', 'IOBES'\]"),
        ({"head": "magic"}, "dense"),
        ({"tagged_token": "middle"}, "first"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        make(**arguments)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (["Rome"], [[{"start": 0, "end": 4, "label": "GPE"}]], "unknown type 'GPE'"),
        (["Rome"], None, "no entities to learn from"),
        ([["a"]], [["I-LOC"]], "in IOB2 an entity begins with B-"),
        ([], [], "data set is empty"),
    ],
)
def test_bad_examples_are_named(x, y, message):
    with pytest.raises(InputError, match=message):
        make().fit(x, y)
