"""Evaluations that end in the middle, and go on where they stopped."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from llama_keras.errors import UnavailableError
from llama_keras.eval import evaluate
from llama_keras.eval.harness import _CHUNK
from llama_keras.eval.targets.rest import RestTarget
from llama_keras.serving.server import serve_in_background

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
