"""Evaluations that end in the middle, and go on where they stopped."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest

from llama_keras.cli import main
from llama_keras.errors import UnavailableError
from llama_keras.eval import evaluate
from llama_keras.eval.harness import _CHUNK
from llama_keras.eval.targets.rest import RestTarget
from llama_keras.serving.server import serve_in_background
from tests.toy_evaluation import GoodTarget

COUNT = 3 * _CHUNK
SUITE = "name: many\ndata:\n  source: {}\nlabels: [negative, positive]\nmetrics: [accuracy]\n"
# A toy target that takes its time and tells how far it is; no TensorFlow, so that it starts soon.
SLOW = """
import sys, time
from tests.toy_evaluation import GoodTarget
from llama_keras.eval import evaluate

class Slow(GoodTarget):
    def ask(self, kind, requests, *, batch_size=32):
        answers = super().ask(kind, requests, batch_size=batch_size)
        print("asked", len(requests), flush=True)
        time.sleep(float(sys.argv[3]))
        return answers

result = evaluate(sys.argv[1], model=Slow(), output=sys.argv[2])
print("done", result.resumed, result.asked, flush=True)
"""


@pytest.fixture
def many(tmp_path):
    rows = [
        {"text": f"{'good' if n % 3 else 'bad'} {'x' * (n % 50)} {n}", "label": "positive"}
        for n in range(COUNT)
    ]
    rows[0]["label"] = "negative"
    data = tmp_path / "many.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    suite = tmp_path / "many.yaml"
    suite.write_text(SUITE.format(data))
    return suite


def samples(folder):
    return (folder / "samples_many.jsonl").read_text()


def test_killed_evaluation_goes_on_to_the_same_samples(tmp_path, many, repository, toy_target):
    folder, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, "-c", SLOW, str(many), str(folder)]
    settings = {"cwd": repository, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, "60"], **settings) as process:
        try:
            assert process.stdout and process.stdout.readline()  # the first chunk is asked
        finally:
            os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "results.json").exists()
    with subprocess.Popen([*command, "1"], **settings) as process:
        try:
            part, end = folder / "samples_many.part.jsonl", time.monotonic() + 60
            while not (part.exists() and part.stat().st_size) and time.monotonic() < end:
                time.sleep(0.01)
        finally:
            os.kill(process.pid, signal.SIGKILL)
    kept = part.read_text().count("\n")  # half a line, if the kill came just then, is asked again
    assert 0 <= kept < COUNT
    done = subprocess.run([*command, "0"], cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"done {kept} {COUNT - kept}"
    evaluate(many, model=toy_target, output=whole)
    assert samples(folder) == samples(whole)
    first, second = (json.loads((f / "results_many.json").read_text()) for f in (folder, whole))
    assert first["metrics"] == second["metrics"]


class Breaking(GoodTarget):
    """Answers two examples, and then what `after` gives."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def ask(self, kind, requests, *, batch_size=32):
        answers = super().ask(kind, requests, batch_size=batch_size)
        return answers if len(self.asked) == 1 else [self.after() for _ in answers]


def away():
    raise UnavailableError("The server is gone. Asked 6 times.")


@pytest.mark.parametrize(
    ("after", "code", "told"),
    [
        (away, 3, "Asked 6 times. What was answered is kept; the same command goes on from here"),
        (lambda: {"text": "hm"}, 2, r"gave ['text'] to 'classify', without ['label', 'score']"),
        (lambda: {"label": "meh", "score": 1.0}, 2, "'meh'"),
        (lambda: {"label": "positive", "score": math.nan}, 2, "score that is not a number"),
    ],
)
def test_nothing_is_lost_of_what_came_before(
    tmp_path, toy_suite, monkeypatch, after, code, told, capsys
):
    monkeypatch.setattr("llama_keras.eval.harness._CHUNK", 2)
    folder, targets = tmp_path / "broken", iter([Breaking(after), GoodTarget()])
    monkeypatch.setattr("llama_keras.eval.harness.open_target", lambda *_, **__: next(targets))
    command = ["llama-keras", "evaluate", "run", str(toy_suite), "--model", "toy"]
    monkeypatch.setattr("sys.argv", [*command, "--batch-size", "2", "--output", str(folder)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == code
    assert told in capsys.readouterr().err
    assert (folder / "samples_toy.part.jsonl").read_text().count("\n") == 2
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 0
    assert "2 examples from before" in capsys.readouterr().out
    assert json.loads((folder / "results_toy.json").read_text())["n"] == 4


def test_server_that_dies_midway_is_gone_on_with(tmp_path, many, toy_export):
    folder, whole = tmp_path / "died", tmp_path / "whole"
    pauses = []
    with serve_in_background(toy_export) as url:
        evaluate(many, model=url, output=whole)
    port = int(url.split(":")[2].split("/")[0])

    class Dying(RestTarget):
        """Its server is stopped after the first chunk."""

        def ask(self, kind, requests, **options):
            answers = super().ask(kind, requests, **options)
            if running is not None:
                stop()
            return answers

    running = serve_in_background(toy_export, port=port)
    url = running.__enter__()

    def stop():
        nonlocal running
        running.__exit__(None, None, None)
        running = None

    dying = Dying(url, sleep=pauses.append)
    with pytest.raises(UnavailableError, match="No connection to .*Asked 6 times"):
        evaluate(many, model=dying, output=folder)
    dying.close()
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert len((folder / "samples_many.part.jsonl").read_text().splitlines()) == _CHUNK
    with serve_in_background(toy_export, port=port) as again:
        assert again == url
        result = evaluate(many, model=again, output=folder)
    assert (result.resumed, result.asked) == (_CHUNK, COUNT - _CHUNK)
    assert samples(folder) == samples(whole)
