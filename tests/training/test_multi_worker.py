"""Real processes on this machine under MultiWorkerMirroredStrategy."""

import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

from llama_keras.training.launching import Launch, worker_environments

WORKER = [sys.executable, "-m", "tests.training.multi_worker_worker"]


@pytest.fixture
def work(tmp_path, repository, monkeypatch):
    """Gives a function that runs cases in a number of workers, and what each of them found."""
    monkeypatch.chdir(repository)
    monkeypatch.setenv("PYTHONPATH", str(repository))

    def run(*cases, workers, folder="work", restarts=0, code=0):
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        lines = []
        command = [*WORKER, str(place), *cases]
        found = Launch(command, workers=workers, restarts=restarts, write=lines.append).run()
        assert found == code, "\n".join(lines)[-5000:]
        names = ["one"] if workers == 1 else range(workers)
        return [dict(np.load(place / f"{name}.npz")) for name in names]

    return run


def assert_same(workers, one):
    """Asserts that workers have the same numbers, which are those of one process."""
    first, *others = workers
    assert set(first) == set(one)
    for name, value in first.items():
        for other in others:
            np.testing.assert_array_equal(value, other[name], err_msg=name)
        np.testing.assert_allclose(value, one[name], atol=5e-6, rtol=1e-5, err_msg=name)


def load(path):
    return keras.saving.load_model(path, custom_objects={"Model": keras.Model}, compile=False)


def assert_each_row_once(workers):
    """Asserts that the rows of each batch came to one worker each, and about half to each."""
    for name, batches in (("rows/rows", 3), ("rows/rows of a task", 6)):
        seen = [{(int(batch), int(row)) for batch, row in each.pop(name)} for each in workers]
        assert not set.intersection(*seen)
        rows = [(b, b % 3 * 8 + i) for b in range(batches) for i in range(8)]
        assert set.union(*seen) == {(b, row) for b, row in rows if row < 21}
        assert min(len(each) for each in seen) >= 3 * batches


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_keras_gives_the_same_in_two_workers_as_in_one_process(work, tmp_path):
    (one,) = work("small", workers=1)
    two = work("small", "rows", workers=2, folder="two")
    assert_each_row_once(two)
    assert_same([{k: v for k, v in each.items() if k.startswith("small/")} for each in two], one)
    model = load(tmp_path / "two" / "chief.keras")
    np.testing.assert_allclose(model.get_weights()[0], one["small/weight 0"], atol=5e-6)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_tasks_learn_the_same_in_two_workers_as_in_one_process(work, tmp_path):
    cases = ["text_classifier", "token_classifier", "embedder", "pretraining", "summed_loss"]
    (one,) = work(*cases, workers=1)
    assert_same(work(*cases, workers=2, folder="two"), one)
    assert (tmp_path / "two" / "chief.keras").exists()
    assert not (tmp_path / "two" / "other.keras").exists()
    assert (tmp_path / "work" / "in scope.keras").exists()
    assert not (tmp_path / "two" / "in scope.keras").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_three_workers(work):
    (one,) = work("small", workers=1)
    assert_same(work("small", workers=3, folder="three"), one)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_killed_worker_and_a_restart_change_nothing(work):
    straight = work("killed", workers=2)
    again = work("killed", "--killed", workers=2, folder="again", restarts=1)
    for before, after in zip(straight, again, strict=True):
        assert set(before) == set(after)
        for name, value in before.items():
            np.testing.assert_array_equal(value, after[name], err_msg=name)
    (one,) = work("killed", workers=1, folder="one")
    # Masks of dropout are each replica's own, so only the shapes are those of one process.
    assert set(one) == set(straight[0])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_others_end_when_a_worker_is_killed(tmp_path, repository):
    log = (tmp_path / "log").open("w")
    processes = [
        subprocess.Popen(
            [*WORKER, str(tmp_path), "killed", "--killed"],
            cwd=repository,
            env={**os.environ, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        for environment in worker_environments(2)
    ]
    try:
        assert processes[1].wait(timeout=400) == -signal.SIGKILL, (tmp_path / "log").read_text()
        assert processes[0].wait(timeout=200) != 0
    finally:
        for process in processes:
            process.kill()
        log.close()
    assert "Restart your program" in (tmp_path / "log").read_text()
