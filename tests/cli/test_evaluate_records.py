import json
import re

import pytest
from typer.testing import CliRunner

from llama_keras.cli import build_app
from llama_keras.errors import InputError
from tests.toy_records import write_record

SUITES = ("ends", "names")


@pytest.fixture
def invoke(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    app = build_app()
    return lambda *arguments: CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    return (
        write_record(folder / "a", skill=0.6, names=SUITES),
        write_record(folder / "b", skill=0.85, names=SUITES),
    )


def test_compare_prints_figures_and_flips(invoke, records):
    done = invoke("compare", *records, "--flips", 2)
    assert done.exit_code == 0, done.output
    assert f"A: {records[0]} (toy runs/toy model)" in done.output
    cells = next(line.split() for line in done.output.splitlines() if line.startswith("acc "))
    assert cells[-2:] == ["mcnemar", "B"] and "choice_perplexity " in done.output
    assert float(cells[3]) == pytest.approx(float(cells[2]) - float(cells[1]), abs=1.1e-4)
    assert len(re.findall(r"^  \d+: B is right", done.output, re.MULTILINE)) == 2 * len(SUITES)
    assert "only B has" in done.output


def test_compare_as_json_is_the_whole_output(invoke, records):
    done = invoke("compare", *records, "--json", "--suite", "ends")
    found = json.loads(done.stdout)
    assert list(found["suites"]) == ["ends"]
    flips = found["suites"]["ends"]["flips"]
    assert len(flips) == found["suites"]["ends"]["changes"]["acc"]["only_b"]
    assert flips[0]["doc"]["choices"][1] == flips[0]["expected"] == flips[0]["b"]


def test_compare_tells_what_is_not_there(invoke, records, tmp_path):
    done = invoke("compare", records[0], tmp_path / "absent")
    assert isinstance(done.exception, InputError)
    assert "holds no finished evaluation" in str(done.exception)


def test_report_tells_where_it_wrote(invoke, records, tmp_path):
    done = invoke("report", records[0])
    assert done.stdout == f"wrote {records[0] / 'report.html'}\n"
    assert (records[0] / "report.html").read_text().startswith("<!doctype html>")
    assert invoke("report", records[0], "--output", tmp_path / "page.html").exit_code == 0
    assert (tmp_path / "page.html").is_file()


def test_rescore_tells_what_changed(invoke, tmp_path):
    folder = write_record(tmp_path / "record", skill=0.6, names=["ends"])
    results = json.loads((folder / "results.json").read_text())
    value = results["results"]["ends"]["acc,none"]
    done = invoke("rescore", folder)
    assert f"ends: acc {value:.4f} (as before)" in done.stdout
    results["details"]["ends"]["metrics"]["acc"]["value"] = 0.99
    (folder / "results.json").write_text(json.dumps(results))
    config = tmp_path / "ends.yaml"
    config.write_text(json.dumps({**results["configs"]["ends"], "metrics": ["acc"]}))
    done = invoke("rescore", folder, "--suite", config)
    assert f"ends: acc {value:.4f} (was 0.9900)" in done.stdout and "acc_norm" not in done.stdout
    (row,) = json.loads(invoke("rescore", folder, "--json").stdout)
    assert row["metrics"] == {"acc": row["metrics"]["acc"]}


def test_run_writes_scalars_for_tensorboard(invoke, toy_suite, toy_export, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logs = tmp_path / "logs"
    call = ["run", toy_suite, "--model", toy_export, "--tensorboard", logs, "--step", 7]
    assert invoke(*call).exit_code == 0
    (event,) = EventAccumulator(str(logs)).Reload().Tensors("toy/accuracy")
    assert event.step == 7
