import json

import pytest
from typer.testing import CliRunner

from llama_keras.cli import build_app
from llama_keras.errors import InputError
from tests.cli.test_cli import llama_keras

TINY = ("--set", "preset=llama-tiny")


@pytest.fixture
def invoke():
    app = build_app()
    return lambda *arguments: CliRunner().invoke(
        app, ["data", "check", *map(str, arguments), *TINY]
    )


@pytest.fixture
def rows(tmp_path):
    file = tmp_path / "rows.jsonl"
    content = [{"text": f"text {n}", "label": "ab"[n % 2]} for n in range(40)]
    file.write_text("".join(json.dumps(row) + "\n" for row in content))
    return file


def test_good_data(invoke):
    done = invoke("demo_sentiment")
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[0] == "good  rows        500 read, none refused"
    assert done.output.splitlines()[-1] == "demo_sentiment: 11 good, 0 warn, 0 fail"


def test_set_overrides_and_a_fail_is_exit_code_1(invoke, rows):
    parts = ("--set", f"data.train={rows}", "--set", f"data.test={rows}")
    done = invoke("text_classification", *parts)
    assert done.exit_code == 1
    assert "fail  overlap     40 of 40 (100 %) of test are in train" in done.output
    assert invoke("text_classification", *parts[:2]).exit_code == 0


def test_json_is_the_whole_output(invoke, rows):
    done = invoke("text_classification", "--set", f"data.train={rows}", "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["task"], found["level"]) == (0, "text_classification", "good")
    counts = next(check for check in found["checks"] if check["check"] == "counts")
    assert counts["details"] == {"train": {"examples": 40, "labels": {"a": 20, "b": 20}}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sst9"], "There is no recipe 'sst9'"),
        (["text_classification"], "no training data"),
        (["sst2", "--set", "data.trian=x"], "data.trian"),
    ],
)
def test_wrong_recipes_are_told(invoke, arguments, message):
    done = invoke(*arguments)
    assert isinstance(done.exception, InputError) and message in str(done.exception)


def test_a_real_recipe(shared_dir, monkeypatch, invoke):
    monkeypatch.setenv("LLAMA_KERAS_SHARED", str(shared_dir))
    done = invoke("sst2", "--json")
    assert done.exit_code == 0, done.output
    found = {check["check"]: check for check in json.loads(done.stdout)["checks"]}
    sizes = {name: part["examples"] for name, part in found["counts"]["details"].items()}
    assert sizes == {"train": 6920, "validation": 872, "test": 1821}
    assert found["overlap"]["level"] == "warn"
    assert found["overlap"]["details"]["test in train"] == 2


def test_a_mistake_is_one_quiet_paragraph():
    done = llama_keras("data", "check", "text_classification")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and "no training data" in done.stderr


def test_pretraining_recipes_by_name_and_by_file(invoke, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("one line\nanother line\n")
    file = tmp_path / "mine.yaml"
    file.write_text(f"name: mine\nobjective: causal\ndata: {{train: {text}}}\n")
    for recipe, name in (("plain_text", "plain_text"), (file, "mine")):
        done = invoke(recipe, "--set", f"data.train={text}")
        assert done.exit_code == 0, done.output
        assert "good  counts      train 2 documents of 20 characters" in done.output
        assert done.output.splitlines()[-1] == f"{name}: 6 good, 0 warn, 0 fail"
    broken = tmp_path / "broken.yaml"
    broken.write_text("objective: [")
    assert "is not YAML" in str(invoke(broken).exception)
