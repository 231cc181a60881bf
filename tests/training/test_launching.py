import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from llama_keras.errors import InputError
from llama_keras.training.launching import Launch, multi_worker_command, worker_environments

# A worker's program begins with its number and the folder where the workers meet.
START = """
import json, os, pathlib, signal, sys, time
config = json.loads(os.environ["TF_CONFIG"])
index = config["task"]["index"]
folder = pathlib.Path(sys.argv[1])

def wait_for(name):
    while not (folder / name).exists():
        time.sleep(0.01)
"""


def launch(folder, program, **arguments):
    lines = []
    command = [sys.executable, "-c", START + textwrap.dedent(program), str(folder)]
    code = Launch(command, write=lines.append, **{"workers": 2, **arguments}).run()
    return code, lines


def test_workers_know_each_other_and_their_lines_are_told_apart(tmp_path):
    program = """
    print("hello", *config["cluster"]["worker"])
    print("trouble", file=sys.stderr)
    """
    code, lines = launch(tmp_path, program, workers=3)
    assert code == 0
    hellos = sorted(line for line in lines if "hello" in line)
    assert [line[:9] for line in hellos] == ["[0] hello", "[1] hello", "[2] hello"]
    assert len({line[9:] for line in hellos}) == 1
    assert len(set(hellos[0].split()[2:])) == 3
    assert sorted(line for line in lines if "trouble" in line) == [
        f"[{i}] trouble" for i in range(3)
    ]


def test_the_others_end_when_one_fails(tmp_path):
    program = """
    if index == 0:
        wait_for("1 is there")
        sys.exit(7)
    (folder / "1 is there").touch()
    wait_for("never")
    """
    code, lines = launch(tmp_path, program)
    assert code == 7
    assert "launch: worker 0 ended with exit code 7" in lines


def test_the_others_end_when_one_is_killed(tmp_path):
    program = """
    if index == 1:
        wait_for("0 is there")
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / "0 is there").touch()
    wait_for("never")
    """
    code, lines = launch(tmp_path, program)
    assert code == 128 + signal.SIGKILL
    assert "launch: worker 1 was ended by SIGKILL" in lines


def test_a_worker_that_does_not_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("llama_keras.training.launching.GRACE", 0.2)
    program = """
    if index == 0:
        wait_for("1 is deaf")
        sys.exit(7)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (folder / "1 is deaf").touch()
    wait_for("never")
    """
    code, lines = launch(tmp_path, program)
    assert code == 7
    assert "launch: worker 1 does not end and is killed" in lines


def test_a_worker_may_end_before_the_others(tmp_path):
    program = """
    if index == 0:
        wait_for("1 has ended")
    print("done")
    (folder / f"{index} has ended").touch()
    """
    code, lines = launch(tmp_path, program)
    assert code == 0
    assert sorted(lines) == ["[0] done", "[1] done"]


FAILING = """
attempt = folder / f"attempt {index}"
number = len(attempt.read_text()) if attempt.exists() else 0
attempt.write_text("x" * (number + 1))
print("arguments", *sys.argv[2:])
if index == 1:
    sys.exit([3, 4, 0][number])
wait_for("never" if number < 2 else f"attempt {index}")
"""


def test_all_start_again_and_resume(tmp_path):
    code, lines = launch(tmp_path, FAILING, restarts=2)
    assert code == 0
    assert [line for line in lines if line.startswith("[1]")] == [
        "[1] arguments",
        "[1] arguments --resume",
        "[1] arguments --resume",
    ]
    assert (tmp_path / "attempt 1").read_text() == "xxx"


def test_restarts_come_to_an_end(tmp_path):
    code, _ = launch(tmp_path, FAILING, restarts=1)
    assert code == 4
    assert (tmp_path / "attempt 1").read_text() == "xx"


def test_a_users_mistake_is_not_tried_again(tmp_path):
    code, lines = launch(tmp_path, "sys.exit(2)", restarts=3)
    assert code == 2
    assert not any("starting all workers again" in line for line in lines)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_the_workers_and_end_the_run(tmp_path, number):
    program = """
    def stop(number, frame):
        print("stopped by", signal.Signals(number).name)
        sys.exit(1)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    print("ready")
    wait_for("never")
    """
    command = [sys.executable, "-c", START + textwrap.dedent(program), str(tmp_path)]
    code = "import sys; from llama_keras.training.launching import Launch\n"
    code += "sys.exit(Launch(sys.argv[1:], workers=2, restarts=1).run())"
    launcher = subprocess.Popen(
        [sys.executable, "-c", code, *command], stdout=subprocess.PIPE, text=True
    )
    assert launcher.stdout is not None
    ready = {launcher.stdout.readline() for _ in range(2)}
    assert ready == {"[0] ready\n", "[1] ready\n"}
    launcher.send_signal(number)
    rest, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == 128 + number
    assert rest.count(f"stopped by {number.name}") == 2
    assert "again" not in rest


def test_each_worker_has_gpus_of_its_own(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    program = "print(os.environ['CUDA_VISIBLE_DEVICES'])"
    _, lines = launch(tmp_path, program, gpus=2)
    assert sorted(lines) == ["[0] 0,1", "[1] 2,3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,6,7")
    _, lines = launch(tmp_path, program, gpus=2)
    assert sorted(lines) == ["[0] 3,5", "[1] 6,7"]
    with pytest.raises(InputError, match="need 6, but CUDA_VISIBLE_DEVICES names 4"):
        launch(tmp_path, program, gpus=3)


def test_one_worker_is_a_plain_run():
    assert worker_environments(1) == [{}]
    assert "--strategy" not in multi_worker_command(["train", "sst2"], workers=1)


def test_addresses_are_free_and_different():
    environments = worker_environments(4)
    configs = [json.loads(each["TF_CONFIG"]) for each in environments]
    assert [config["task"] for config in configs] == [
        {"type": "worker", "index": i} for i in range(4)
    ]
    assert len({*configs[0]["cluster"]["worker"]}) == 4


def test_commands_that_cannot_be_launched_are_refused():
    with pytest.raises(InputError, match="launch starts `train` and `pretrain`"):
        multi_worker_command(["serve", "x"], workers=2)
    for words in (["train", "--strategy", "none"], ["train", "--strategy=none"]):
        with pytest.raises(InputError, match="leave --strategy out"):
            multi_worker_command(words, workers=2)


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"restarts": -1}, {"gpus": -1}])
def test_numbers_are_checked(tmp_path, wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))} must be"):
        launch(tmp_path, "", **wrong)


def test_nothing_of_the_workers_is_left(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    end = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    program = """
    import subprocess
    if index == 1:
        with (folder / "pipe").open("w") as pipe:
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdout=pipe)
        (folder / "ready").touch()
        wait_for("never")
    wait_for("ready")
    sys.exit(5)
    """
    assert launch(tmp_path, program)[0] == 5
    os.set_blocking(end, True)
    assert os.read(end, 1) == b""  # which waits for whoever could still write
    os.close(end)
