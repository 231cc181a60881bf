import json
import shutil

import numpy as np
import pytest

from llama_keras.errors import InputError
from llama_keras.eval import sums
from llama_keras.eval.compare import RIGHT, compare
from llama_keras.eval.folder import read_evaluation
from llama_keras.eval.kinds import METRIC_NAMES
from tests.toy_records import COUNT, NAMES, write_record


@pytest.fixture(scope="module")
def found(records):
    return compare(*records)


def test_every_suite_and_metric_is_compared(records, found):
    assert list(found.suites) == list(NAMES) and found.only_in_one == []
    a, b = (read_evaluation(folder).results for folder in records)
    for name, suite in found.suites.items():
        assert suite.n == COUNT
        assert list(suite.changes) == list(a[name].metrics)
        for metric, change in suite.changes.items():
            values = a[name].metrics[metric].value, b[name].metrics[metric].value
            assert (change.a, change.b) == values
            assert change.difference == pytest.approx(values[1] - values[0])
            assert change.low - 1e-9 <= change.difference <= change.high + 1e-9
            assert 0 < change.p_value <= 1


@pytest.mark.parametrize(
    ("suite", "metric", "test"),
    [
        ("films", "accuracy", "mcnemar"),
        ("films", "f1", "bootstrap"),
        ("films", "ece", "bootstrap"),
        ("names", "f1", "bootstrap"),
        ("towns", "exact_match", "mcnemar"),
        ("towns", "f1", "bootstrap"),
        ("ends", "acc_norm", "mcnemar"),
        ("last_words", "perplexity", "bootstrap"),
        ("papers", "word_perplexity", "bootstrap"),
        ("echoes", "bleu", "bootstrap"),
        ("pairs", "recall@1", "mcnemar"),
        ("pairs", "mrr", "bootstrap"),
    ],
)
def test_the_test_fits_the_metric(found, suite, metric, test):
    change = found.suites[suite].changes[metric]
    assert change.test == test
    if test == "mcnemar":
        assert (change.only_b - change.only_a) / COUNT == pytest.approx(change.difference)


def test_flips_are_the_examples_of_mcnemars_counts(found):
    for suite, metric in (("films", "accuracy"), ("ends", "acc"), ("echoes", "exact_match")):
        flips, change = found.suites[suite].flips, found.suites[suite].changes[metric]
        assert sum(flip.right == "a" for flip in flips) == change.only_a
        assert sum(flip.right == "b" for flip in flips) == change.only_b > 0
    flip = found.suites["films"].flips[0]
    assert flip.b == flip.expected == flip.doc["label"] != flip.a
    assert set(RIGHT) < set(METRIC_NAMES) and found.suites["papers"].flips == []


def test_one_and_the_same_do_not_differ(records):
    found = compare(records[0], records[0])
    for suite in found.suites.values():
        assert suite.flips == []
        assert {(c.difference, c.p_value) for c in suite.changes.values()} == {(0.0, 1.0)}
        assert suite.notes == ["Both measured the same weights."]


def test_the_record_is_plain(found):
    again = json.loads(json.dumps(found.to_dict()))
    assert again["suites"]["films"]["changes"]["accuracy"]["test"] == "mcnemar"
    assert again["a"]["model"]["location"] == "runs/toy model"
    assert "notes" in again["suites"]["films"]


def test_one_suite_can_be_named(records):
    assert list(compare(*records, suite="films").suites) == ["films"]
    with pytest.raises(InputError, match="no suite 'movies'; it has .*'films'"):
        compare(*records, suite="movies")


def test_a_metric_that_is_no_sum_is_computed_for_each_draw(records, found, monkeypatch):
    monkeypatch.setitem(sums._MAKERS, "token_classification", {})
    slow = compare(*records, suite="names").suites["names"].changes["f1"]
    fast = found.suites["names"].changes["f1"]
    assert slow.difference == pytest.approx(fast.difference)
    np.testing.assert_allclose((slow.low, slow.high), (fast.low, fast.high), atol=0.1)


def test_other_examples_are_refused(tmp_path, records):
    short = write_record(tmp_path / "short", skill=0.6, names=["films"], limit=10)
    with pytest.raises(InputError, match="A has 24 examples and B 10.* the same limit"):
        compare(records[0], short)
    other = shutil.copytree(records[0], tmp_path / "other")
    file = other / "samples_films.jsonl"
    samples = [json.loads(line) for line in file.read_text().splitlines()]
    for changed, reason in (
        (
            [*samples[:3], {**samples[3], "doc_hash": "0" * 64}, *samples[4:]],
            "number 3 is the first",
        ),
        ([samples[1], samples[0], *samples[2:]], "in another order"),
    ):
        file.write_text("".join(json.dumps(sample) + "\n" for sample in changed))
        with pytest.raises(InputError, match=f"examples of films differ: .*{reason}"):
            compare(records[0], other)


def test_a_figure_that_the_samples_do_not_give_is_refused(record, records):
    content = json.loads((record / "results.json").read_text())
    content["details"]["films"]["metrics"]["accuracy"]["value"] = 0.99
    (record / "results.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"records accuracy 0\.99 .*evaluate rescore"):
        compare(records[0], record, suite="films")


def test_folders_without_a_common_suite_are_refused(tmp_path, records):
    a = write_record(tmp_path / "a", skill=0.6, names=["films"])
    b = write_record(tmp_path / "b", skill=0.6, names=["towns"])
    with pytest.raises(InputError, match=r"\['films'\] and .*\['towns'\]: none is in both"):
        compare(a, b)
    assert compare(a, records[1]).only_in_one == list(NAMES[1:])


def test_what_differs_besides_is_noted(record, records):
    content = json.loads((record / "results.json").read_text())
    content["configs"]["films"]["labels"] = ["odd", "good", "bad"]
    content["details"]["films"]["prompts_sha256"] = "0" * 64
    content["details"]["films"]["versions"]["keras"] = "2.0"
    (record / "results.json").write_text(json.dumps(content))
    notes = compare(records[1], record, suite="films").suites["films"].notes
    assert notes[:2] == ["The suites differ in labels.", "The prompts differ."]
    assert "keras" in notes[2] and "2.0" in notes[2]


@pytest.mark.parametrize("what", ["absent", "unfinished", "damaged", "old", "short", "other"])
def test_a_folder_that_is_no_finished_evaluation_is_told(tmp_path, record, records, what):
    folder = record
    if what == "absent":
        folder, reason = tmp_path / "nowhere", "holds no finished evaluation"
    elif what == "unfinished":
        (record / "results.json").unlink()
        reason = "go on with it"
    elif what == "damaged":
        (record / "results.json").write_text('{"details": ')
        reason = "cannot be read as JSON"
    elif what == "old":
        (record / "results.json").write_text('{"metrics": {}}')
        reason = "not written by this version"
    elif what == "short":
        file = record / "samples_films.jsonl"
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
        reason = "should hold the 24 examples .* holds 23"
    else:
        content = json.loads((record / "results.json").read_text())
        content["configs"]["films"]["task"] = "juggling"
        (record / "results.json").write_text(json.dumps(content))
        reason = "not written by this version"
    with pytest.raises(InputError, match=reason):
        compare(folder, records[1])
