import json
import re
import runpy

import pytest

from llama_keras.errors import InputError


def test_classify_and_serve(repository, tmp_path):
    example = runpy.run_path(str(repository / "examples/classify_and_serve.py"))
    answers = example["main"](str(tmp_path), "llama-tiny")
    assert [answer["label"] in ("negative", "positive") for answer in answers] == [True] * 3
    assert (tmp_path / "sentiment/1/saved_model.pb").is_file()


def test_article(repository, tmp_path, capsys):
    rows = [
        {
            "question": f"How many days has month {number}?",
            "context": f"Month {number} has {28 + number} days.",
            "answers": [{"text": f"{28 + number}", "answer_start": 12}],
        }
        for number in (0, 1, 2, 3)
    ] * 8
    rows.append({"question": "Too long?", "context": "day " * 60, "answers": rows[0]["answers"]})
    file = tmp_path / "months.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    example = runpy.run_path(str(repository / "examples/article.py"))
    history = example["main"](data=str(file), preset="llama-tiny", length=96)
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert history["loss"][2] < history["loss"][0]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == (
        "32 of 33 examples have an answer and at most 96 tokens (0 have no answer, 1 are longer)"
    )
    assert len(printed) == 4 and all("val_accuracy" in line for line in printed[1:])


def squad_file(folder, *, answered):
    """Writes SQuAD's JSON (v2.0) of one long context, one question without an answer, and more."""
    questions = [
        {
            "id": f"q{number}",
            "question": f"Which day is number {number}?",
            "answers": [{"text": f"day {number}", "answer_start": 0}],
        }
        for number in range(answered)
    ]
    paragraphs = [
        {"context": f"day {number} of the week", "qas": [question]}
        for number, question in enumerate(questions)
    ]
    silent = {"id": "none", "question": "Why?", "answers": [], "is_impossible": True}
    longer = {"id": "long", "question": "Which?", "answers": [{"text": "day", "answer_start": 0}]}
    paragraphs += [
        {"context": "day by day", "qas": [silent]},
        {"context": "day " * 60, "qas": [longer]},
    ]
    file = folder / "days.json"
    file.write_text(json.dumps({"version": "v2.0", "data": [{"paragraphs": paragraphs}]}))
    return str(file)


def test_article_reads_squads_own_files(repository, tmp_path, capsys):
    example = runpy.run_path(str(repository / "examples/article.py"))
    data = squad_file(tmp_path, answered=2)  # one to learn from, one to measure on
    history = example["main"](data=data, preset="llama-tiny", length=96)
    assert len(history["val_loss"]) == 3
    assert capsys.readouterr().out.splitlines()[0] == (
        "2 of 4 examples have an answer and at most 96 tokens (1 have no answer, 1 are longer)"
    )


@pytest.mark.parametrize(("answered", "examples"), [(0, 64), (1, 64), (2, 0)])
def test_article_says_that_it_has_too_few_rows(repository, tmp_path, answered, examples):
    example = runpy.run_path(str(repository / "examples/article.py"))
    data = squad_file(tmp_path, answered=answered)
    with pytest.raises(InputError, match=f"{answered} examples fit and {examples} are wanted"):
        example["main"](data=data, preset="llama-tiny", length=96, examples=examples)


def test_the_articles_loss_and_accuracy_leave_padding_out(repository):
    example = runpy.run_path(str(repository / "examples/article.py"))
    inputs, targets, weights = example["batch_of"]([[1, 5, 6], [1, 7]], length=5, pad_id=9)
    assert inputs["token_ids"].tolist() == [[1, 5, 6, 9], [1, 7, 9, 9]]
    assert inputs["padding_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]
    assert targets.tolist() == [[5, 6, 9, 9], [7, 9, 9, 9]]
    assert weights.tolist() == [[1, 1, 0, 0], [1, 0, 0, 0]]


@pytest.mark.slow
def test_the_readmes_tour_in_python(repository, tmp_path, monkeypatch):
    readme = (repository / "README.md").read_text(encoding="utf-8")
    (tour,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(tour.replace("smollm2-135m-instruct", "llama-tiny"), names)
    assert (tmp_path / "saved_models/sentiment/1/saved_model.pb").is_file()
    (answer,) = names["model"].predict(["A lovely, moving film."], verbose=0)
    assert set(answer["scores"]) == {"negative", "positive"}
