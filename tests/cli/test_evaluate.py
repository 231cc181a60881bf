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


def test_prints_a_table_and_writes_the_record(tmp_path, invoke, toy_suite, toy_export):
    output = tmp_path / "result"
    done = invoke(toy_suite, "--model", toy_export, "--output", output)
    assert done.exit_code == 0, done.output
    assert "toy: 4 examples" in done.output
    assert "0.7500" in done.output
    assert (output / "results.json").is_file()
    assert len((output / "examples.jsonl").read_text().splitlines()) == 4


def test_json_is_the_whole_output(invoke, toy_suite, toy_export):
    done = invoke(toy_suite, "--model", toy_export, "--json", "--limit", 2)
    result = json.loads(done.stdout)
    assert (result["n"], result["metrics"]["accuracy"]["value"]) == (2, 1.0)


def test_fail_under_decides_the_exit_code(invoke, toy_suite, toy_export):
    call = [toy_suite, "--model", toy_export, "--fail-under"]
    assert invoke(*call, "accuracy=0.75").exit_code == 0
    done = invoke(*call, "accuracy=0.76")
    assert done.exit_code == 1
    assert "accuracy 0.7500 is under 0.76" in done.stderr


@pytest.mark.parametrize("wrong", ["accuracy", "accuracy=high", "f1=0.1"])
def test_fail_under_is_checked_before_any_work(invoke, toy_suite, wrong):
    done = invoke(toy_suite, "--model", "http://127.0.0.1:9/x", "--fail-under", wrong)
    assert isinstance(done.exception, InputError)
    assert wrong in str(done.exception)


def test_a_mistake_is_one_quiet_paragraph(toy_suite, tmp_path):
    command = [sys.executable, "-m", "llama_keras.cli", "evaluate", str(toy_suite)]
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
