import json

import pytest

from llama_keras.errors import InputError
from llama_keras.eval import evaluate_suites
from llama_keras.eval.folder import read_evaluation
from llama_keras.eval.rescore import rescore
from tests.toy_records import NAMES, ScriptedTarget, write_record

pytestmark = pytest.mark.usefixtures("few_draws")


def contents(folder):
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_the_same_suites_give_the_same_folder(record):
    before = contents(record)
    results = rescore(record)
    assert contents(record) == before
    assert [result.suite for result in results] == list(NAMES)


def test_a_figure_that_was_spoilt_comes_back(record):
    before = contents(record)
    for name in ("results.json", "results_films.json"):
        (record / name).write_text(before[name].replace('"accuracy', '"acuracy'))
    rescore(record)
    assert contents(record) == before


def test_answers_are_scored_by_the_rule_of_the_suite(record):
    file = record / "samples_towns.jsonl"
    samples = [json.loads(line) for line in file.read_text().splitlines()]
    right = next(sample for sample in samples if sample["correct"] and sample["target"])
    right["resps"][0]["text"] = f"The {right['target'][0].upper()}"
    file.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    suite = read_evaluation(record).suites["towns"]
    before = read_evaluation(record).results["towns"].metrics["exact_match"].value
    squad, cmrc = (
        {r.suite: r for r in rescore(record, suites=[suite.model_copy(update={"rule": rule})])}
        for rule in ("squad", "cmrc")
    )
    # SQuAD leaves out articles, CMRC does not.
    assert squad["towns"].metrics["exact_match"].value == before
    assert cmrc["towns"].metrics["exact_match"].value == pytest.approx(before - 1 / 24)
    written = [json.loads(line) for line in file.read_text().splitlines()]
    again = next(sample for sample in written if sample["doc_id"] == right["doc_id"])
    assert (again["correct"], again["exact_match"]) == (False, 0.0)
    assert again["filtered_resps"] == right["resps"][0]["text"]


def test_another_rule_and_other_metrics_take_the_place(record):
    suite = read_evaluation(record).suites["towns"]
    changed = suite.model_copy(update={"rule": "cmrc", "metrics": ["f1"], "version": 2})
    samples = contents(record)["samples_films.jsonl"]
    results = {result.suite: result for result in rescore(record, suites=[changed])}
    assert list(results["towns"].metrics) == ["f1"] and results["towns"].version == 2
    written = read_evaluation(record)
    assert written.suites["towns"] == changed
    assert written.results["towns"] == results["towns"]
    first = json.loads((record / "samples_towns.jsonl").read_text().splitlines()[1])
    assert list(first) == [
        "doc_id",
        "doc",
        "target",
        "arguments",
        "resps",
        "filtered_resps",
        "doc_hash",
        "prompt_hash",
        "correct",
        "confidence",
        "exact_match",
        "f1",
        "has_answer_f1",
        "no_answer_accuracy",
    ]
    assert contents(record)["samples_films.jsonl"] == samples


def test_the_run_of_the_new_suite_goes_on_from_the_folder(tmp_path, monkeypatch):
    folder = write_record(tmp_path / "record", skill=0.6, names=["films"])
    suite = read_evaluation(folder).suites["films"].model_copy(update={"metrics": ["mcc"]})
    (result,) = rescore(folder, suites=[suite])
    monkeypatch.setattr(ScriptedTarget, "ask", None)  # whoever asks it fails
    asked = ScriptedTarget(0.6, sha256=f"{60:064d}")
    again = evaluate_suites([suite], model=asked, output=folder)
    assert again == [result]


def test_labels_of_the_data_and_shots_of_the_run_stay(tmp_path):
    folder = write_record(tmp_path / "record", skill=0.6, names=["last_words"], shots=2)
    suite = read_evaluation(folder).suites["last_words"]
    assert suite.shots.count == 2
    fresh = suite.model_copy(update={"shots": suite.shots.model_copy(update={"count": 0})})
    before = contents(folder)
    rescore(folder, suites=[fresh])
    assert contents(folder) == before


def test_what_was_asked_cannot_be_changed(record):
    before = contents(record)
    suites = read_evaluation(record).suites
    prompt = suites["ends"].prompt.model_copy(update={"context": "Q: {context}"})
    for name, changes, what in (
        ("ends", {"prompt": prompt}, "another prompt"),
        ("films", {"data": suites["towns"].data}, "another data"),
        ("films", {"task": "token_classification"}, "another task"),
    ):
        with pytest.raises(InputError, match=f"{name} now has {what}.* run the evaluation again"):
            rescore(record, suites=[suites[name].model_copy(update=changes)])
    with pytest.raises(InputError, match="holds no demo_sentiment"):
        rescore(record, suites=["demo_sentiment"])
    wrong = suites["films"].model_copy(update={"metrics": ["acuracy"]})
    with pytest.raises(InputError, match="did you mean accuracy"):
        rescore(record, suites=[wrong])
    assert contents(record) == before
