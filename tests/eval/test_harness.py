import json
import math
from pathlib import Path

import pytest

from llama_keras.errors import InputError
from llama_keras.eval import evaluate, evaluate_suites
from llama_keras.eval.metrics import wilson_interval
from llama_keras.eval.suite import load_suite
from llama_keras.eval.targets.fingerprints import content_sha256


def samples_of(folder, suite="toy"):
    text = (folder / f"samples_{suite}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_result_holds_values_intervals_and_where_they_come_from(toy_suite, toy_target):
    result = evaluate(toy_suite, model=toy_target)
    assert (result.n, result.original_n, result.asked, result.cached) == (4, 4, 4, 0)
    accuracy = result.metrics["accuracy"]
    assert accuracy.value == 0.75
    assert (accuracy.low, accuracy.high) == wilson_interval(3, 4)
    assert result.data["source"].endswith("toy.csv")
    assert len(result.data["sha256"]) == len(result.prompts_sha256) == 64
    assert result.model == {
        "kind": "toy",
        "location": "toy",
        "sha256": "0" * 64,
        "precision": None,
        "settings": {},
    }
    assert result.seconds > 0 and result.peak_memory_bytes > 1 << 20
    assert result.versions["llama-keras"] != "not installed"


def test_half_a_surrogate_pair_survives_the_record(tmp_path, toy_suite, toy_target):
    file = tmp_path / "odd.jsonl"
    file.write_text('{"text": "\\ud800 good é", "label": "positive"}\n')
    evaluate(toy_suite, model=toy_target, data=file, output=tmp_path / "x")
    (sample,) = samples_of(tmp_path / "x")
    assert sample["doc"]["text"] == "\ud800 good é"
    again = evaluate(toy_suite, model=toy_target, data=file, output=tmp_path / "x")
    assert again.metrics["accuracy"].value == 1.0


def test_the_suites_metrics_are_those_computed(toy_suite, toy_target):
    suite = load_suite(toy_suite).model_copy(update={"metrics": ["f1"]})
    result = evaluate(suite, model=toy_target)
    assert list(result.metrics) == ["f1"]
    assert result.metrics["f1"].value == pytest.approx((2 / 3 + 0.8) / 2)


def test_a_suite_that_names_no_metrics_gets_those_that_apply(toy_suite, toy_target):
    suite = load_suite(toy_suite).model_copy(update={"metrics": [], "labels": None})
    result = evaluate(suite, model=toy_target)
    assert list(result.metrics) == ["accuracy", "f1", "micro_f1", "mcc", "ece"]
    assert result.labels == ["negative", "positive"]
    assert result.metrics["ece"].value == pytest.approx(0.0)  # 0.75 sure, 0.75 right


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_answers_stay_with_their_texts_in_any_batch_size(
    tmp_path, toy_suite, toy_target, batch_size
):
    output = tmp_path / "result"
    evaluate(toy_suite, model=toy_target, batch_size=batch_size, output=output)
    samples = samples_of(output)
    assert [sample["doc_id"] for sample in samples] == [0, 1, 2, 3]
    wanted = {
        "doc": {"text": "good, not", "label": "negative"},
        "target": "negative",
        "arguments": [{"text": "good, not"}],
        "resps": [{"label": "positive", "score": 0.75}],
        "filtered_resps": "positive",
        "correct": False,
    }
    assert wanted.items() <= samples[2].items()
    results = json.loads((output / "results.json").read_text())
    assert results["results"]["toy"]["accuracy,none"] == 0.75
    assert results["n-samples"]["toy"] == {"original": 4, "effective": 4}
    assert results["higher_is_better"]["toy"]["accuracy"] is True


def test_limit_takes_the_first_examples(toy_suite, toy_target):
    result = evaluate(toy_suite, model=toy_target, limit=2)
    assert (result.n, result.limit, result.original_n) == (2, 2, 4)
    assert result.metrics["accuracy"].value == 1.0
    whole = evaluate(toy_suite, model=toy_target)
    assert result.data["sha256"] != whole.data["sha256"]


def test_data_replaces_the_suites_own(tmp_path, toy_suite, toy_target):
    file = tmp_path / "other.jsonl"
    file.write_text('{"text": "good", "label": "positive"}\n')
    result = evaluate(toy_suite, model=toy_target, data=file)
    assert (result.n, result.metrics["accuracy"].value) == (1, 1.0)
    assert result.data["source"] == str(file)
    with pytest.raises(InputError, match="just one"):
        evaluate_suites([toy_suite, "sst2"], model=toy_target, data=file)


def test_a_finished_evaluation_is_not_asked_again(tmp_path, toy_suite, toy_target):
    output = tmp_path / "result"
    first = evaluate(toy_suite, model=toy_target, output=output, drift=0)
    assert evaluate(toy_suite, model=toy_target, output=output) == first
    assert len(toy_target.asked) == 1


def test_an_interrupted_one_goes_on_even_after_half_a_line(tmp_path, toy_suite, toy_target):
    output = tmp_path / "result"
    evaluate(toy_suite, model=toy_target, output=output)
    whole = (output / "samples_toy.jsonl").read_text().splitlines(keepends=True)
    (output / "samples_toy.part.jsonl").write_text(whole[0] + whole[2] + whole[3][:20])
    for name in ("samples_toy.jsonl", "results_toy.json", "results.json"):
        (output / name).unlink()
    result = evaluate(toy_suite, model=toy_target, output=output, drift=0)
    assert (result.resumed, result.asked, result.n) == (2, 2, 4)
    assert sorted(toy_target.asked[-1]) == ["bad", "so bad"]
    assert (output / "samples_toy.jsonl").read_text() == "".join(whole)
    assert not (output / "samples_toy.part.jsonl").exists()


def test_what_batches_change_is_measured(toy_suite, toy_target, monkeypatch):
    result = evaluate(toy_suite, model=toy_target)
    assert result.drift == {"examples": 4, "largest": {"score": 0.0}, "differing": []}
    ask = toy_target.ask

    def wavering(kind, requests, *, batch_size):
        score = 0.75 if len(requests) > 1 else 0.8 if "not" in requests[0]["text"] else 0.7501
        return [{**answer, "score": score} for answer in ask(kind, requests)]

    monkeypatch.setattr(toy_target, "ask", wavering)
    drift = evaluate(toy_suite, model=toy_target, drift=9).drift or {}
    assert (drift["examples"], drift["differing"]) == (4, [2])
    assert drift["largest"]["score"] == pytest.approx(0.05)
    assert evaluate(toy_suite, model=toy_target, drift=0).drift is None


@pytest.mark.parametrize(
    ("changes", "what"),
    [({"limit": 2}, "limit"), ({"seed": 1}, "seed"), ({"sha256": "1" * 64}, "target")],
)
def test_the_folder_of_another_evaluation_is_refused(
    tmp_path, toy_suite, toy_target, changes, what
):
    output = tmp_path / "result"
    evaluate(toy_suite, model=toy_target, output=output)
    before = {file: file.read_bytes() for file in output.iterdir()}
    toy_target.sha256 = changes.pop("sha256", toy_target.sha256)
    with pytest.raises(InputError, match=f"an evaluation of another {what}"):
        evaluate(toy_suite, model=toy_target, output=output, **changes)
    assert {file: file.read_bytes() for file in output.iterdir()} == before


def test_a_record_of_another_version_is_told(tmp_path, toy_suite, toy_target):
    output = tmp_path / "result"
    evaluate(toy_suite, model=toy_target, output=output)
    results = json.loads((output / "results_toy.json").read_text())
    (output / "results_toy.json").write_text(json.dumps({**results, "poem": 1}))
    with pytest.raises(InputError, match="not written by this version"):
        evaluate(toy_suite, model=toy_target, output=output)


def test_a_folder_that_holds_something_else_is_refused(tmp_path, toy_suite, toy_target):
    (tmp_path / "thesis.txt").write_text("dear")
    with pytest.raises(InputError, match="holds no evaluation"):
        evaluate(toy_suite, model=toy_target, output=tmp_path)
    assert toy_target.asked == []


def test_a_file_that_is_not_the_suites_is_refused(toy_suite, toy_target):
    suite = load_suite(toy_suite)
    right = content_sha256(Path(suite.data.source))
    for sha256, good in ((right, True), ("0" * 64, False)):
        data = suite.data.model_copy(update={"sha256": sha256})
        changed = suite.model_copy(update={"data": data})
        if good:
            assert evaluate(changed, model=toy_target).n == 4
        else:
            with pytest.raises(InputError, match="is not the file that toy was made for"):
                evaluate(changed, model=toy_target)


def test_answers_come_from_the_cache_of_the_same_weights_only(tmp_path, toy_suite, toy_target):
    cache = tmp_path / "deep" / "answers.sqlite"
    evaluate(toy_suite, model=toy_target, limit=2, cache=cache)
    result = evaluate(toy_suite, model=toy_target, cache=cache)
    assert (result.cached, result.asked) == (2, 2)
    assert result.metrics["accuracy"].value == 0.75
    toy_target.sha256 = "1" * 64
    assert evaluate(toy_suite, model=toy_target, cache=cache).cached == 0
    toy_target.sha256 = None
    with pytest.raises(InputError, match="does not tell its weights"):
        evaluate(toy_suite, model=toy_target, cache=cache)
    (tmp_path / "no.sqlite").write_text("this is no database, not at all, by no means")
    toy_target.sha256 = "1" * 64
    with pytest.raises(InputError, match="cannot be used as a cache"):
        evaluate(toy_suite, model=toy_target, cache=tmp_path / "no.sqlite")


def test_labels_that_differ_are_refused_with_both_lists(tmp_path, toy_suite, toy_target):
    toy_target.labels = ["bad", "good"]
    with pytest.raises(InputError, match=r"\['bad', 'good'\].*\['negative', 'positive'\]"):
        evaluate(toy_suite, model=toy_target)
    toy_target.labels = ["negative"]
    with pytest.raises(InputError, match=r"suite toy .*'positive'.*\['negative'\]"):
        evaluate(toy_suite, model=toy_target)
    file = tmp_path / "other.jsonl"
    file.write_text('{"text": "so so", "label": "neutral"}\n')
    with pytest.raises(InputError, match=r"'neutral'.*\['negative', 'positive'\]"):
        evaluate(toy_suite, model=toy_target, data=file)


def test_a_label_that_a_silent_model_makes_up_is_refused(toy_suite, toy_target, monkeypatch):
    toy_target.labels = None
    made_up = [{"label": "meh", "score": 1.0}]
    monkeypatch.setattr(toy_target, "ask", lambda kind, asked, batch_size: made_up * len(asked))
    with pytest.raises(InputError, match="answer .*'meh'"):
        evaluate(toy_suite, model=toy_target)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"label": "positive", "score": math.nan}, "a score that is not a number"),
        (
            {"label": "positive", "score": 1.0, "scores": {"x": math.nan}},
            "a x that is not a number",
        ),
        ({"text": "positive"}, r"without \['label', 'score'\]"),
        ({"labels": ["positive"], "scores": {}}, "set data.multi_label"),
    ],
)
def test_malformed_answers_are_refused(toy_suite, toy_target, monkeypatch, answer, reason):
    monkeypatch.setattr(toy_target, "ask", lambda kind, asked, batch_size: [answer] * len(asked))
    with pytest.raises(InputError, match=reason):
        evaluate(toy_suite, model=toy_target)


def test_a_target_that_does_something_else_is_told(toy_suite, toy_target):
    toy_target.requests = frozenset({"tag"})
    with pytest.raises(InputError, match=r"asks for 'classify'.* answers \['tag'\]"):
        evaluate(toy_suite, model=toy_target)


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"batch_size": 0}])
def test_sizes_below_one_are_refused(toy_suite, toy_target, wrong):
    with pytest.raises(InputError, match="at least 1"):
        evaluate(toy_suite, model=toy_target, **wrong)


def test_shots_are_for_prompted_suites(toy_suite, toy_target):
    with pytest.raises(InputError, match="takes no worked examples"):
        evaluate(toy_suite, model=toy_target, shots=2)
