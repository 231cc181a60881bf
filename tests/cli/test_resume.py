"""Real processes, killed with SIGKILL, resumed on the command line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from llama_keras.tasks import TextClassifier
from llama_keras.training.checkpoints import Checkpoints

WAIT = 600  # seconds; only a run that hangs takes them


def train(folder, name, *more, launch=()):
    texts = [("no", "yes")[i % 2] for i in range(16)]
    file = folder / "texts.jsonl"
    rows = [json.dumps({"text": f"{label} {i}", "label": label}) for i, label in enumerate(texts)]
    file.write_text("\n".join(rows))
    fields = ["preset=llama-tiny", f"data.train={file}", f"data.validation={file}"]
    fields += ["train.batch_size=2", "train.epochs=12", "train.checkpoint_every=7"]
    words = ["train", "text_classification", "--output", str(folder / name), *more]
    words += [word for field in fields for word in ("--set", field)]
    command = [sys.executable, "-m", "llama_keras.cli", *launch, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(process):
    output, _ = process.communicate(timeout=WAIT)
    assert process.returncode == 0, output[-3000:]
    return output


def wait_until(process, store, step):
    last = f"step-{step:09d}"
    end = time.monotonic() + WAIT
    while not store.names() or store.names()[-1] < last:
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < end
        time.sleep(0.01)


def killed_after(process, store, step):
    wait_until(process, store, step)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def quality(run):
    """Gives a run's metrics without its speed, which is of the process that ended it."""
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics.pop("throughput")["tokens_per_second"] > 0
    return metrics


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_killed_by_the_system_and_resumed(tmp_path):
    finished(train(tmp_path, "whole"))
    store = Checkpoints(folder=tmp_path / "run/checkpoints")
    killed_after(train(tmp_path, "run", "--resume"), store, 7)
    killed_after(train(tmp_path, "run", "--resume"), store, 49)
    refused = train(tmp_path, "run")
    assert "go on with it by --resume" in " ".join(refused.communicate()[0].split())
    assert refused.returncode == 2
    assert "going on from the checkpoint step-" in finished(train(tmp_path, "run", "--resume"))
    assert "holds the finished run already" in finished(train(tmp_path, "run", "--resume"))
    whole, run = (TextClassifier.load(tmp_path / n / "model.keras") for n in ("whole", "run"))
    for a, b in zip(whole.get_weights(), run.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert quality(tmp_path / "whole") == quality(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_mirrored_on_the_command_line(tmp_path):
    mirrored = ("--strategy", "mirrored", "--replicas", "2")
    finished(train(tmp_path, "whole", *mirrored))
    store = Checkpoints(folder=tmp_path / "run/checkpoints")
    killed_after(train(tmp_path, "run", *mirrored), store, 7)
    finished(train(tmp_path, "run", "--resume", *mirrored))
    whole, run = (TextClassifier.load(tmp_path / n / "model.keras") for n in ("whole", "run"))
    for a, b in zip(whole.get_weights(), run.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the workers in /proc")
def test_a_launched_worker_is_killed_and_all_start_again(tmp_path):
    whole = finished(train(tmp_path, "whole", launch=("launch", "--workers", "2")))
    assert "starting all workers again" not in whole
    store = Checkpoints(folder=tmp_path / "run/checkpoints")
    launch = ("launch", "--workers", "2", "--restarts", "1")
    process = train(tmp_path, "run", launch=launch)
    wait_until(process, store, 14)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    assert "starting all workers again" in finished(process)
    runs = (TextClassifier.load(tmp_path / n / "model.keras") for n in ("whole", "run"))
    for a, b in zip(*(run.get_weights() for run in runs), strict=True):
        np.testing.assert_array_equal(a, b)
