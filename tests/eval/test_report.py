import dataclasses
import json
import re
import shlex

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llama_keras.errors import InputError
from llama_keras.eval import evaluate, load_suite
from llama_keras.eval.folder import read_evaluation
from llama_keras.eval.harness import rows_of
from llama_keras.eval.report import command_of, is_shipped, suite_report, write_report
from llama_keras.eval.report_examples import examples_of, marked
from llama_keras.eval.suite import Suite
from tests.browser import find_chromium, open_browser
from tests.explain.test_page import Page
from tests.toy_records import COUNT, EVIL, NAMES, write_record


@pytest.fixture(scope="module")
def page(records, tmp_path_factory):
    return write_report(records[0], tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="module")
def reports(records):
    evaluation = read_evaluation(records[0])
    return {name: suite_report(evaluation, name) for name in NAMES}


def test_the_page_stands_alone_and_holds_every_figure(records, page):
    text = page.read_text(encoding="utf-8")
    read = Page(text)
    for result in read_evaluation(records[0]).results.values():
        for name, metric in result.metrics.items():
            assert name in read.texts and f"{metric.value:.4f}" in read.texts
            assert f"{metric.low:.4f} – {metric.high:.4f}" in read.texts
        for value in (result.model["sha256"], result.data["sha256"], result.prompts_sha256):
            assert value in read.texts
    assert "http:" not in text and "https:" not in text and "url(" not in text
    outside = {"src", "srcset", "xlink:href", "action"}
    assert outside.isdisjoint(name for _, name, _ in read.attributes)
    links = [value for _, name, value in read.attributes if name == "href"]
    ids = {value for _, name, value in read.attributes if name == "id"}
    assert set(links) - {"data:,"} == {f"#{id_}" for id_ in ids} == {f"#suite-{n}" for n in NAMES}


def test_texts_are_never_markup(page):
    read = Page(page.read_text(encoding="utf-8"))
    assert read.tags.count("script") == 1 and "b" not in read.tags
    assert any(EVIL in text for text in read.texts)


def test_confusions_are_counted(records, reports):
    confusion = reports["films"].confusion
    assert confusion.labels == ["bad", "good", "odd"]
    assert [sum(row) for row in confusion.counts] == [8, 8, 8]
    right = sum(confusion.counts[n][n] for n in range(3))
    assert right / COUNT == reports["films"].result.metrics["accuracy"].value
    assert sum(count for *_, count in confusion.pairs) == COUNT - right
    counts = [count for *_, count in confusion.pairs]
    assert counts == sorted(counts, reverse=True)
    kind, scores = reports["films"].by_type
    assert kind == "label"
    f1 = sum(row["f1"] for row in scores.values()) / 3
    assert f1 == pytest.approx(reports["films"].result.metrics["f1"].value)
    assert reports["names"].by_type[1]["LOC"]["support"] == COUNT
    assert reports["towns"].confusion is None and reports["towns"].by_type is None


def test_plots_have_all_examples(reports):
    calibration, by_length = reports["films"].plots
    for plot in (calibration, by_length):
        assert sum(int(row[-1]) for row in plot.rows) == COUNT
        assert plot.picture.count("<circle") == len(plot.rows) > 1
    share = sum(float(row[1]) * int(row[-1]) for row in by_length.rows) / COUNT
    assert share == pytest.approx(reports["films"].result.metrics["accuracy"].value, abs=1e-3)
    titles = {name: [plot.title for plot in reports[name].plots] for name in NAMES}
    assert titles["names"] == ["f1 by length"] and titles["echoes"] == ["chrf by length"]
    assert titles["papers"] == ["word_perplexity by length"] and titles["pairs"] == []


def test_wrong_answers_stand_there_the_surest_first(records, reports):
    evaluation = read_evaluation(records[0])
    for name, key in (("films", "correct"), ("ends", "acc"), ("towns", "correct")):
        samples = evaluation.samples(name)
        wrong = {sample["doc_id"] for sample in samples if not sample[key]}
        examples = reports[name].examples
        assert {example.number for example in examples.shown} == wrong
        assert examples.total == len(wrong) > 1
        if name != "towns":
            sure = [samples[example.number]["confidence"] for example in examples.shown]
            assert sure == sorted(sure, reverse=True)
    assert reports["papers"].examples.total == COUNT
    assert 0 < reports["pairs"].examples.total < COUNT


def test_entities_and_answers_are_marked_in_the_text(reports):
    example = reports["names"].examples.shown[0]
    expected, found = (dict(example.parts)[name] for name in ("expected", "found"))
    assert '<mark class="missed">Ada<small>PER</small></mark>' in expected
    assert re.search(r'<mark class="extra">(Paris|Rom)<small>PER</small></mark>', found)
    example = next(e for e in reports["towns"].examples.shown if "old town" in str(e.parts))
    context = dict(example.parts)["context"]
    # The answer begins too early: what both have is marked as both.
    assert '<mark class="extra">is </mark><mark class="extra missed">old town' in context
    assert "&lt;script&gt;" in context


def test_choices_within_the_context_are_shown_whole():
    prompt = {"context": "{choice} came", "scored": "late."}
    suite = Suite.model_validate(
        {"name": "x", "task": "multiple_choice", "data": {"source": "x.jsonl"}, "prompt": prompt}
    )
    doc = {"choices": ["Ada", "Bob"], "answer": 0}
    asked = [{"context": f"{name} came", "continuation": " late."} for name in doc["choices"]]
    resps = [{"logprob": -2.0}, {"logprob": -1.0}]
    sample = {"doc_id": 0, "doc": doc, "arguments": asked, "resps": resps}
    (example,) = examples_of(suite, [sample], rows_of(suite, [sample])).shown
    ((_, drawn),) = example.parts
    assert '-2.00 <mark class="missed">Ada came late.<small>expected</small></mark>' in drawn
    assert '-1.00 <mark class="extra">Bob came late.<small>found</small></mark>' in drawn


@given(
    st.text(max_size=40),
    st.lists(st.tuples(st.integers(-2, 42), st.integers(-2, 42)), max_size=4),
)
def test_marks_lose_nothing_of_a_text(text, places):
    spans = [(start, end, "right", "") for start, end in places]
    drawn = re.sub(r"</?mark[^>]*>", "", str(marked(text, spans)))
    assert drawn == str(marked(text, ()))


def test_a_long_text_is_cut_around_its_mark():
    text = "x" * 5000 + "needle" + "y" * 5000
    drawn = marked(text, [(5000, 5006, "missed", "PER")])
    assert '<mark class="missed">needle<small>PER</small></mark>' in drawn
    assert drawn.startswith("… x") and drawn.endswith("y …") and len(drawn) < 1400


def test_what_is_not_shown_is_told(records, tmp_path, monkeypatch):
    monkeypatch.setattr("llama_keras.eval.report_examples.SHOWN", 2)
    text = write_report(records[0], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "2 are shown; samples_films.jsonl has all." in text
    assert text.count("<li ") == 2 * len(NAMES)


def test_the_command_and_the_suite_repeat_the_evaluation(tmp_path):
    folder = write_record(tmp_path / "record", skill=0.6, names=["ends"], limit=12, shots=1, seed=3)
    report = suite_report(read_evaluation(folder), "ends")
    command = "llama-keras evaluate run ends.yaml --limit 12 --shots 1 --seed 3 --model".split()
    assert sorted(shlex.split(report.command)) == sorted([*command, "runs/toy model"])
    assert Suite.model_validate(yaml.safe_load(report.config)) == report_suite(folder)
    text = write_report(folder).read_text(encoding="utf-8")
    assert "the first 12 of 24 examples, 1 worked example before each" in " ".join(text.split())
    assert "ends.yaml is what stands" in text


def report_suite(folder):
    return read_evaluation(folder).suites["ends"]


def test_the_command_repeats_the_precision(reports):
    result = reports["films"].result
    model = {**result.model, "settings": {"dtype": "mixed_bfloat16"}}
    command = command_of(dataclasses.replace(result, model=model), load_suite("demo_sentiment"))
    assert "--dtype mixed_bfloat16" in command
    old = {key: value for key, value in result.model.items() if key != "settings"}
    older = command_of(dataclasses.replace(result, model=old), load_suite("demo_sentiment"))
    assert "--dtype" not in older  # of a record that does not tell it


def test_a_shipped_suite_goes_by_its_name(reports):
    suite, result = load_suite("demo_sentiment"), reports["films"].result
    assert is_shipped(suite)
    command = command_of(result, suite)
    assert "run demo_sentiment --model" in command and "--data" in command
    assert not is_shipped(suite.model_copy(update={"metrics": ["mcc"]}))


class SetTarget:
    """Gives each text of several labels the first one only."""

    kind = location = "toy"
    requests = frozenset({"classify"})
    labels = None

    def ask(self, kind, requests, *, batch_size=32):
        return [{"labels": r["text"].split()[:1], "scores": {}} for r in requests]

    def fingerprint(self):
        return None

    def first_tokens(self, kind, request):
        return [1, 1, 5]

    bos_id = 1


def test_sets_of_labels_servers_and_warnings(tmp_path):
    rows = [{"text": "a b HALF", "label": ["a", "b"]}, {"text": "a", "label": ["a"]}]
    (tmp_path / "sets.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = {"source": str(tmp_path / "sets.jsonl"), "multi_label": True}
    suite = Suite.model_validate({"name": "sets", "data": data, "metrics": ["subset_accuracy"]})
    evaluate(suite, model=SetTarget(), output=tmp_path / "record")
    samples = tmp_path / "record" / "samples_sets.jsonl"
    samples.write_text(samples.read_text().replace("HALF", r"\ud800"))
    text = write_report(tmp_path / "record").read_text(encoding="utf-8")
    assert '<dd dir="auto">a b \ufffd</dd>' in text  # a file cannot hold half a character
    assert '<dd dir="auto">a, b</dd>' in text and "Calibration" not in text
    assert "not told by a server" in text and "[1, 1, 5]" in text
    assert 'class="warning">The first request begins with two tokens' in text


def test_places_that_cannot_be_written_are_told(records, tmp_path):
    with pytest.raises(InputError, match="give a file in a folder that exists"):
        write_report(records[0], tmp_path / "absent" / "report.html")
    with pytest.raises(InputError, match="no finished evaluation"):
        write_report(tmp_path)


def test_a_browser_shows_it_without_a_word_or_a_request(page):
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("no Chromium; apt-get install chromium")
    colours, visible = set(), "[...document.querySelectorAll('#suite-films li')].filter(e => "
    visible += "e.checkVisibility()).length"
    with open_browser(chromium) as browser:
        for dark in (False, True):
            browser.open(page, dark=dark)
            colours.add(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
        shown = browser.evaluate(visible)
        browser.evaluate(
            """{ const form = document.querySelector("#suite-films form");
            form.elements.expected.value = "=bad";
            form.dispatchEvent(new Event("input")); }"""
        )
        bad = browser.evaluate(visible)
        told = browser.evaluate("document.querySelector('#suite-films output').value")
        browser.open(page, width=420, script=False)
        still = browser.evaluate(visible)
        form = browser.evaluate("document.querySelector('form').checkVisibility()")
        width = browser.evaluate("document.documentElement.scrollWidth")
        assert browser.logged == []
        assert set(browser.requested) <= {page.resolve().as_uri(), "data:,"}
    assert len(colours) == 2
    assert 0 < bad < shown == still and told == f"{bad} of {shown}"
    assert form is False and width <= 420
