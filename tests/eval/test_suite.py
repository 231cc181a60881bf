from typing import get_args

import pytest

from llama_keras.errors import InputError
from llama_keras.eval.kinds import METRIC_NAMES, get_kind
from llama_keras.eval.requests import REQUESTS
from llama_keras.eval.suite import TaskName, load_suite, suite_names

GOOD = """\
name: mine
data:
  source: mine.csv
  text_column: sentence
labels: [a, b]
metrics: [accuracy]
"""


@pytest.mark.parametrize("name", suite_names())
def test_shipped_suites_load(name):
    suite = load_suite(name)
    assert suite.name == name and suite.description
    assert suite.metrics or METRIC_NAMES[suite.task]


def test_the_names_of_metrics_are_those_that_the_tasks_compute():
    for task, names in METRIC_NAMES.items():
        kind = get_kind(task)
        assert set(kind.metrics) == set(names)
        assert kind.request in REQUESTS
    assert set(METRIC_NAMES) == set(get_args(TaskName))


def test_own_suite_loads_with_defaults(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(GOOD, encoding="utf-8")
    suite = load_suite(file)
    assert suite.data.text_column == "sentence"
    assert suite.data.label_column == "label"
    assert suite.metrics == ["accuracy"]


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match="'xquad_ed'.*did you mean 'xquad_en'.*'demo_sentiment'"):
        load_suite("xquad_ed")


BAD = [
    (GOOD.replace("accuracy", "acuracy"), ["no metric 'acuracy'", "did you mean accuracy"]),
    (GOOD + "metric: [f1]\n", ["line 7", "metric:"]),
    (GOOD.replace("  source: mine.csv\n", ""), ["line 2", "data.source", "required"]),
    (GOOD.replace("[a, b]", "[a, a]"), ["line 5", "repeated"]),
    (GOOD.replace("[accuracy]", "accuracy"), ["line 6", "metrics"]),
    (GOOD + "task: poetry\n", ["line 7", "task", "multiple_choice"]),
    (GOOD + "prompt:\n  replace: {'(': x}\n", ["line 8", "prompt.replace", "'('"]),
    (GOOD + "prompt:\n  replace: {'a': '\\1'}\n", ["line 8", "invalid group reference"]),
    ("", ["line 1", "the whole file"]),
    ("name: [", ["not YAML"]),
]


@pytest.mark.parametrize(("text", "parts"), BAD)
def test_bad_fields_are_named_with_their_line(tmp_path, text, parts):
    file = tmp_path / "own.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_suite(file)
    for part in parts:
        assert part in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="nothing.yaml"):
        load_suite(tmp_path / "nothing.yaml")
