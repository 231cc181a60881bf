"""The demo and the verbs around it, as a person would run them, on the tiny model."""

import contextlib
import io
import json
import subprocess
import sys

import pytest

from llama_keras.demo import TEXTS, run_demo


def llama_keras(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "llama_keras.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "demo"
    printed = io.StringIO()
    overrides = ["preset=llama-tiny", "train.epochs=1", "model.dtype=float32"]
    with contextlib.redirect_stdout(printed):
        run_demo(output=output, overrides=overrides)
    (output.parent / "printed.txt").write_text(printed.getvalue(), encoding="utf-8")
    return output


def test_demo_ends_with_answers_of_the_live_server(demo):
    printed = (demo.parent / "printed.txt").read_text(encoding="utf-8")
    asked = printed[printed.index("Ask the live server at http://127.0.0.1:") :]
    for text in TEXTS:
        (line,) = [line for line in asked.splitlines() if line.endswith(text)]
        assert line.split()[0] in ("negative", "positive")
    accuracies = [line.split()[2] for line in printed.splitlines() if " accuracy " in line]
    assert len(accuracies) == 3
    assert len(set(accuracies)) == 1
    assert (demo / "metrics.json").is_file()
    assert list((demo / "logs").rglob("events*"))
    assert (demo / "export/demo_sentiment/1/saved_model.pb").is_file()


def test_model_export_and_server_score_the_same(demo, tmp_path):
    from llama_keras.eval import evaluate
    from llama_keras.serving.server import serve_in_background

    with serve_in_background(demo, port=0) as url:
        results = [
            evaluate("demo_sentiment", model=model, show_progress=False)
            for model in (demo, demo / "export/demo_sentiment/1", url)
        ]
    values = [[metric.value for metric in result.metrics.values()] for result in results]
    assert values[0] == values[1] == values[2]
    assert [result.model["kind"] for result in results] == ["keras", "saved_model", "rest"]
    recorded = json.loads((demo / "metrics.json").read_text())["test"]["accuracy"]
    assert values[0][0] == pytest.approx(recorded)


def test_export_and_predict_verbs(demo, tmp_path):
    done = llama_keras("export", demo, "--output", tmp_path / "sentiment")
    assert done.returncode == 0, done.stderr
    answer = llama_keras("predict", tmp_path / "sentiment", "A good day.", "--json")
    assert answer.returncode == 0, answer.stderr
    (row,) = json.loads(answer.stdout)
    assert row["label"] in ("negative", "positive")
    again = llama_keras("export", demo, "--output", tmp_path / "sentiment/1")
    assert again.returncode == 2
    assert "exists already" in again.stderr
    assert "Traceback" not in again.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "nothing", "--output", "x"), "There is no recipe 'nothing'"),
        (("train", "text_classification", "--output", "x"), "has no training data"),
        (
            ("train", "text_classification", "--output", "x", "--set", "data.train=none.jsonl"),
            "none.jsonl",
        ),
        (("export", "nowhere", "--output", "x"), "There is no model at 'nowhere'"),
        (("predict", "nowhere", "text"), "nowhere"),
    ],
)
def test_mistakes_get_one_paragraph(arguments, message):
    done = llama_keras(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
