import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from llama_keras.cli import build_app
from llama_keras.errors import InputError


@pytest.fixture
def invoke():
    app: typer.Typer = build_app()
    return lambda *arguments: CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_help_is_there_before_tensorflow():
    code = "import sys; from llama_keras.cli import build_app; build_app(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    heavy = {"tensorflow", "keras", "numpy", "sklearn", "llama_keras.eval"}
    assert done.returncode == 0 and heavy.isdisjoint(done.stdout.split())


def test_prints_a_table_and_writes_the_record(tmp_path, invoke, toy_suite, toy_export):
    output = tmp_path / "result"
    done = invoke("run", toy_suite, "--model", toy_export, "--output", output)
    assert done.exit_code == 0, done.output
    assert "toy: saved_model" in done.output
    assert "0.7500" in done.output
    assert (output / "results.json").is_file()
    assert len((output / "samples_toy.jsonl").read_text().splitlines()) == 4


def test_json_is_the_whole_output(invoke, toy_suite, toy_export):
    done = invoke("run", toy_suite, "--model", toy_export, "--json", "--limit", 2)
    (result,) = json.loads(done.stdout)
    assert (result["n"], result["metrics"]["accuracy"]["value"]) == (2, 1.0)


def test_fail_under_decides_the_exit_code(invoke, toy_suite, toy_export):
    call = ["run", toy_suite, "--model", toy_export, "--fail-under"]
    assert invoke(*call, "accuracy=0.75").exit_code == 0
    done = invoke(*call, "accuracy=0.76")
    assert done.exit_code == 1
    assert "toy: accuracy 0.7500 is under 0.76" in done.stderr
    assert invoke(*call, "toy:accuracy=0.7").exit_code == 0


@pytest.mark.parametrize("wrong", ["accuracy", "accuracy=high", "f1=0.1", "other:accuracy=0.1"])
def test_fail_under_is_checked_before_any_work(invoke, toy_suite, wrong):
    done = invoke("run", toy_suite, "--model", "http://127.0.0.1:9/x", "--fail-under", wrong)
    assert isinstance(done.exception, InputError)
    assert wrong in str(done.exception)


def test_a_mistake_is_one_quiet_paragraph(toy_suite, tmp_path):
    command = [sys.executable, "-m", "llama_keras.cli", "evaluate", "run", str(toy_suite)]
    done = subprocess.run(
        [*command, "--model", str(tmp_path / "absent")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "absent" in done.stderr


def test_list_names_every_suite_and_show_what_it_asks(invoke, toy_suite):
    listed = json.loads(invoke("list", "--json").stdout)
    assert {"sst2", "hellaswag", "wikitext2"} <= {row["name"] for row in listed}
    assert "hellaswag" in invoke("list").stdout
    shown = invoke("show", toy_suite, "--examples", 2).stdout
    assert "text_column: text" in shown
    assert '"text": "bad"' in shown and "good, not" not in shown


def test_lm_eval_gets_all_that_stands_behind(invoke, monkeypatch):
    from llama_keras.eval import lm_eval_adapter

    given = []
    monkeypatch.setattr(lm_eval_adapter, "main", given.extend)
    asked = ["run", "--model", "llama_keras", "--help", "--tasks", "a,b", "-L", "5"]
    assert invoke("lm-eval", *asked).exit_code == 0
    assert given == asked
    assert "lm-eval" in invoke("--help").stdout


def test_a_server_that_is_away_ends_with_its_own_code(invoke, toy_suite, tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    done = invoke("run", toy_suite, "--model", "http://127.0.0.1:9/v1/models/x")
    assert done.exit_code == 3
    assert "Asked 4 times" in done.stderr and "--output DIR" in done.stderr
