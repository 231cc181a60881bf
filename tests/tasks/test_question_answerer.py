import json
import logging
import random

import numpy as np
import pytest
import tensorflow as tf

from llama_keras.errors import InputError
from llama_keras.tasks import QuestionAnswerer
from llama_keras.tasks.question_data import Questions
from llama_keras.text import Tokenizer
from llama_keras.training.fine_tuning import Full, Lora

SMALL = {
    "max_sequence_length": 64,
    "max_question_tokens": 8,
    "max_answer_tokens": 8,
    "window_overlap": 16,
}
CHINESE = "今天天气很好，我们去北京看长城。" * 4


def examples_of(count, *, seed=0, answered=1.0):
    """Contexts of one to three windows with `<name>` somewhere, or without it."""
    draw, examples = random.Random(seed), []
    for _ in range(count):
        name = "".join(draw.choice("abcdef") for _ in range(4))
        left, right = ("é" * draw.randint(0, 30), "y" * draw.randint(0, 60))
        has_answer = draw.random() < answered
        context = f"{left} <{name}> {right}" if has_answer else f"{left} {name} {right}"
        answers = [{"text": name, "answer_start": len(left) + 2}] if has_answer else []
        examples.append({"question": "who?", "context": context, "answers": answers})
    return examples


def make(**arguments):
    import keras

    keras.utils.set_random_seed(0)
    return QuestionAnswerer.from_preset("llama-tiny", **{**SMALL, **arguments})


@pytest.fixture(scope="module")
def trained():
    model = make(strategy=Full(learning_rate=3e-3))
    model.fit(examples_of(160), epochs=8, batch_size=16, verbose=0)
    return model


def exact(model, examples):
    found = model.predict(examples, verbose=0)
    right = [row["answers"][0]["text"] if row["answers"] else "" for row in examples]
    return np.mean([answer["text"] == text for answer, text in zip(found, right, strict=True)])


def test_it_finds_answers_in_contexts_of_any_length(trained):
    held_out = examples_of(40, seed=1)
    assert exact(trained, held_out) > 0.9
    far = {"question": "who?", "context": "y" * 500 + " <face> " + "y" * 500}
    answer = trained.predict([far], verbose=0)[0]
    assert (answer["text"], answer["start"], answer["end"]) == ("face", 502, 506)
    assert trained.evaluate(held_out, verbose=0)["span_accuracy"] > 0.9


@pytest.mark.parametrize("mask", ["causal", "bidirectional"])
def test_lora_learns(mask):
    model = make(
        strategy=Lora(rank=8, learning_rate=2e-2), backbone_arguments={"attention_mask": mask}
    )
    before = model.backbone.token_embedding.get_weights()[0].copy()
    history = model.fit(examples_of(96), epochs=4, batch_size=16, verbose=0).history
    assert history["loss"][-1] < 0.6 * history["loss"][0]
    assert (model.backbone.token_embedding.get_weights()[0] == before).all()


def test_answers_are_parts_of_the_raw_context(trained):
    contexts = [
        CHINESE,
        "naïve 🙂 <dead> \u200f שלום\u202e",
        "a\x00b <beef>",
        "\ud800 <cafe>",
        "  x ",
    ]
    rows = trained.predict((["who?"] * 5, contexts), n_best=8, verbose=0)
    for context, row in zip(contexts, rows, strict=True):
        texts = [entry["text"] for entry in row["n_best"]]
        assert len(set(texts)) == len(texts) and len(texts) <= 8
        scores = [entry["score"] for entry in row["n_best"]]
        assert scores == sorted(scores, reverse=True) and sum(scores) <= 1.0 + 1e-5
        for entry in [row, *row["n_best"]]:
            clean = context.replace("\ud800", "\ufffd")
            assert clean[entry["start"] : entry["end"]] == entry["text"]
            assert entry["text"] == entry["text"].strip() and 0.0 <= entry["score"] <= 1.0
            assert len(entry["text"].encode()) <= SMALL["max_answer_tokens"] + 6
        assert {key: row[key] for key in ("text", "start", "end", "score")} == row["n_best"][0]


def test_empty_texts_have_no_answer_or_any(trained):
    nothing, no_question = trained.predict((["who?", ""], ["", "x <dead>"]), verbose=0)
    assert nothing == {
        "text": "",
        "start": -1,
        "end": -1,
        "score": 0.0,
        "null_score": 1.0,
        "n_best": [],
    }
    assert no_question["text"]
    assert trained.predict([], verbose=0) == []


def test_answers_do_not_depend_on_batch_or_company(trained):
    examples = examples_of(12, seed=2)
    together = trained.predict(examples, batch_size=5, verbose=0)
    alone = [trained.predict(example, verbose=0)[0] for example in examples]
    for one, other in zip(together, alone, strict=True):
        assert one["text"] == other["text"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)


def test_answers_do_not_depend_on_what_is_worked_on_at_once(trained, monkeypatch):
    examples = examples_of(12, seed=2)
    together = trained.predict(examples, verbose=0)
    monkeypatch.setattr("llama_keras.tasks.question_answerer._QUESTIONS_AT_ONCE", 5)
    monkeypatch.setattr("llama_keras.tasks.question_answerer._CHARACTERS_AT_ONCE", 150)
    monkeypatch.setattr("llama_keras.data.answer_spans._ROWS_AT_ONCE", 2)
    for one, other in zip(together, trained.predict(examples, verbose=0), strict=True):
        assert one["text"] == other["text"] and one["start"] == other["start"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)


def test_groups_have_bounds_in_questions_and_characters():
    def sizes(lengths):
        questions = Questions(["q"] * len(lengths), ["x" * length for length in lengths])
        groups = list(questions.groups(most=3, characters=10))
        assert [text for group in groups for text in group.contexts] == questions.contexts
        return [len(group) for group in groups]

    assert sizes([1] * 7) == [3, 3, 1]
    assert sizes([4, 6, 1, 99, 1, 10]) == [2, 1, 1, 1, 1]
    assert sizes([]) == []


def test_questions_and_padding_can_not_be_answers(trained):
    ids = [[40, 41, 2, 50, 51, 52, 2, 0], [40, 2, 50, 2, 0, 0, 0, 0]]
    mask = [[1, 1, 1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0, 0, 0]]
    features = {"token_ids": np.array(ids), "padding_mask": np.array(mask)}
    logits = trained.predict(features, verbose=0)
    allowed = [[0, 0, 0, 1, 1, 1, 1, 0], [0, 0, 1, 1, 0, 0, 0, 0]]
    assert ((logits > -1e8).all(axis=-1) == np.array(allowed, bool)).all()
    assert np.isfinite(logits).all()


@pytest.mark.slow
def test_null_answers_and_their_threshold(tmp_path):
    model = make(strategy=Full(learning_rate=3e-3), null_answers=True)
    examples = examples_of(200, answered=0.6)
    held_out = examples_of(40, seed=3, answered=0.5)
    model.fit(examples, validation_data=examples_of(40, seed=4, answered=0.5), epochs=8, verbose=0)
    assert 0.0 < model.null_threshold <= 1.0 and model.null_threshold != 0.5
    assert exact(model, held_out) > 0.9
    found = model.predict(held_out, verbose=0)
    for row in found:
        assert (row["text"] == "") == (row["null_score"] > model.null_threshold)
        assert row["n_best"]  # the best spans are told even so
        if not row["text"]:
            assert (row["start"], row["end"], row["score"]) == (-1, -1, row["null_score"])
    model.save(tmp_path / "model.keras")
    loaded = QuestionAnswerer.load(tmp_path / "model.keras")
    assert loaded.null_threshold == model.null_threshold
    assert loaded.predict(held_out, verbose=0) == found
    model.null_threshold = 1.0
    assert all(row["text"] for row in model.predict(held_out, verbose=0))


def test_saved_file_gives_the_same_answers(trained, tmp_path):
    trained.save(tmp_path / "model.keras")
    loaded = QuestionAnswerer.load(tmp_path / "model.keras")
    assert loaded.get_config().keys() == trained.get_config().keys()
    assert loaded.window_settings == trained.window_settings
    assert (loaded.rule, loaded.null_answers) == (trained.rule, trained.null_answers)
    examples = examples_of(6, seed=5)
    assert loaded.predict(examples, verbose=0) == trained.predict(examples, verbose=0)


def test_all_ways_to_hand_questions_in(trained):
    examples = examples_of(6)
    pair = ([row["question"] for row in examples], [row["context"] for row in examples])
    answers = [row["answers"] for row in examples]
    expected = trained.predict(examples, verbose=0)
    assert trained.predict(pair, verbose=0) == expected
    columns = {
        "question": pair[0],
        "context": pair[1],
        "answers": {
            "text": [[a["text"] for a in found] for found in answers],
            "answer_start": [[a["answer_start"] for a in found] for found in answers],
        },
    }
    dataset = tf.data.Dataset.from_tensor_slices(columns)  # pyright: ignore[reportArgumentType]
    assert trained.predict(dataset, verbose=0) == expected
    loss = trained.evaluate(examples, verbose=0)["loss"]
    assert trained.evaluate(pair, answers, verbose=0)["loss"] == pytest.approx(loss)
    assert trained.evaluate(dataset, verbose=0)["loss"] == pytest.approx(loss)
    with pytest.raises(InputError, match="batched"):
        trained.predict(dataset.batch(2))
    with pytest.raises(InputError, match="never ends"):
        trained.predict(dataset.repeat())


def test_labels_of_rows(caplog):
    model = make()
    found = {"text": "北京", "answer_start": CHINESE.index("北京")}
    context = CHINESE + "end"
    with caplog.at_level(logging.WARNING, logger="llama_keras"):
        rows = model.example_rows(
            [
                {"question": "where?", "context": context, "answers": [found]},
                {"question": "a long question", "context": "x", "answers": [found]},
                {
                    "question": "q",
                    "context": "so end",
                    "answers": [{"text": "end", "answer_start": -1}],
                },
            ]
        )
    told = "\n".join(caplog.messages)
    assert "1 of 3 questions are left out: no answer" in told
    assert "1 of 3 answers were not at their offset" in told
    assert "1 of 3 questions were cut to 8 tokens" in told
    spelled = [
        model.tokenizer.decode(ids[start : end + 1])
        for ids, (start, end) in zip(rows.token_ids, rows.labels.tolist(), strict=True)
        if start != len(ids) - 1
    ]
    assert len(rows.token_ids) > len(spelled) and set(spelled) == {"北京", "end"}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_each_real_answer_is_recovered_from_its_labels(shared_dir, smollm2, language):
    from llama_keras.data import load_question_answering

    data = load_question_answering(shared_dir / f"data/xquad/test.{language}.json").head(300)
    model = QuestionAnswerer(
        backbone=make().backbone,
        tokenizer=Tokenizer.from_preset(smollm2),
        max_sequence_length=256,
        max_answer_tokens=48,
        window_overlap=96,
    )
    missed = 0
    for example in data.examples:
        right = example["answers"][0]["text"]
        rows = model.example_rows([example])
        spelled = [
            model.tokenizer.decode(ids[start : end + 1]).strip()
            for ids, (start, end) in zip(rows.token_ids, rows.labels.tolist(), strict=True)
            if start != len(ids) - 1
        ]
        assert spelled and all(right in text for text in spelled)
        missed += any(text != right for text in spelled)
    # A few answers end inside a token, such as "1870" in "1870s".
    assert missed <= {"en": 3, "zh": 30}[language]


def test_cleaning_that_keeps_places(trained):
    model = make(cleaning=["lower"])
    model.set_weights(trained.get_weights())
    plain = trained.predict((["who?"], ["ÉÉ <abba> y".lower()]), verbose=0)[0]
    lower = model.predict((["WHO?"], ["ÉÉ <ABBA> Y"]), verbose=0)[0]
    assert lower["text"] == plain["text"].upper() and lower["score"] == plain["score"]
    with pytest.raises(InputError, match="keep every character in its place"):
        make(cleaning=["collapse_whitespace"])


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([{"question": "q", "context": "c"}], "the examples have none"),
        ([{"question": "q", "answers": []}], "Example 0 has no text as 'context'"),
        ([{"question": 3, "context": "c", "answers": []}], "Example 0 has no text as 'question'"),
        ([{"question": "q", "context": "c", "answers": []}], "1 of 1 questions have no answer"),
        ([{"question": "q", "context": "c", "answers": ["c"]}], "Example 0 has the answer 'c'"),
        (
            [{"question": "q", "context": "c", "answers": [{"text": "c", "answer_start": "0"}]}],
            "answer_start",
        ),
        ([*examples_of(1), {"question": "q", "context": "c"}], "Example 1 has no 'answers'"),
        ([], "data set is empty"),
        (
            [{"question": "q", "context": "c", "answers": [{"text": "d", "answer_start": 0}]}] * 2,
            r"all 2 answers are lost.* 2 have no answer that is in the context.*first is 'd'\)\.",
        ),
        (
            [
                {"question": "q", "context": "y" * 99, "answers": [answer]}
                for answer in (
                    {"text": "y" * 99, "answer_start": 0},
                    {"text": "", "answer_start": 0},
                )
            ],
            r"1 have no answer.*first is ''\) and 1 have an answer longer than a window",
        ),
        ((["q"], ["c", "d"]), "1 questions but 2 contexts"),
    ],
)
def test_bad_examples_are_named(examples, message):
    with pytest.raises(InputError, match=message):
        make().fit(examples)


def test_bad_settings_are_named():
    with pytest.raises(InputError, match="window_overlap=16 must be at least twice"):
        make(max_answer_tokens=9)
    with pytest.raises(InputError, match="leaves no room"):
        make(max_sequence_length=26)
    with pytest.raises(InputError, match="rule='bleu' is not known"):
        make(rule="bleu")
    with pytest.raises(InputError, match="n_best must be at least 1"):
        make().predict(examples_of(1), n_best=0)
    with pytest.raises(InputError, match="has no linear_probe"):
        make(strategy="linear_probe").fit(examples_of(2))
    with pytest.raises(InputError, match="leave y out"):
        make().fit(examples_of(1), [1])
    assert json.dumps(make().get_config()["rule"]) == '"squad"'
