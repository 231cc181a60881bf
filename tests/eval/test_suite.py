import pytest

from llama_keras.errors import InputError
from llama_keras.eval.suite import load_suite, suite_names

GOOD = """\
name: mine
data:
  source: mine.csv
  text_column: sentence
labels: [a, b]
metrics: [accuracy]
"""


def test_shipped_suites_load():
    assert suite_names() == ["demo_sentiment", "sst2"]
    for name in suite_names():
        suite = load_suite(name)
        assert suite.name == name
        assert suite.labels == ["negative", "positive"]


def test_own_suite_loads_with_defaults(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(GOOD, encoding="utf-8")
    suite = load_suite(file)
    assert suite.data.text_column == "sentence"
    assert suite.data.label_column == "label"
    assert suite.metrics == ["accuracy"]


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match="'sst3'.*'demo_sentiment', 'sst2'"):
        load_suite("sst3")


BAD = [
    (GOOD.replace("accuracy", "acuracy"), ["line 6", "metrics.0", "accuracy"]),
    (GOOD + "metric: [f1]\n", ["line 7", "metric:"]),
    (GOOD.replace("  source: mine.csv\n", ""), ["line 2", "data.source", "required"]),
    (GOOD.replace("[a, b]", "[a, a]"), ["line 5", "repeated"]),
    (GOOD.replace("[accuracy]", "[]"), ["line 6", "metrics"]),
    ("", ["line 1", "the whole file"]),
    ("name: [", ["not YAML"]),
]


@pytest.mark.parametrize(("text", "parts"), BAD)
def test_bad_fields_are_named_with_their_line(tmp_path, text, parts):
    file = tmp_path / "own.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_suite(file)
    for part in [str(file), *parts]:
        assert part in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="nothing.yaml"):
        load_suite(tmp_path / "nothing.yaml")
