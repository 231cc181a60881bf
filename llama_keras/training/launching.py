"""Starts the workers of one machine, shows what they print, and ends or restarts them together.

`tf.distribute` knows its peers by TF_CONFIG; a worker that dies leaves the others waiting or
failing, so all of them start and end as one.
"""

import contextlib
import json
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from llama_keras.errors import InputError

# What the command line ends with after a user's mistake, which a restart would not mend.
MISTAKE = 2
RESUME = "--resume"
# Below those that systems give to outgoing connections (32768 and up on Linux).
PORTS = range(20000, 32000)
# Seconds from the request to end until a worker is killed.
GRACE = 15.0


@dataclass
class Launch:
    """Processes that train together on this machine.

    Attributes:
        command: the program and its arguments, the same for all.
        workers: how many processes.
        restarts: how often all are started again after one has failed, then with `--resume`.
        gpus: of each worker, by turns from CUDA_VISIBLE_DEVICES; None leaves all to all.
        write: gets each line that a worker prints, with its number in front.
    """

    command: Sequence[str]
    workers: int
    restarts: int = 0
    gpus: int | None = None
    write: Callable[[str], Any] = field(default=lambda line: print(line + "\n", end="", flush=True))

    def __post_init__(self):
        for name, least in (("workers", 1), ("restarts", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be {least} or more; received {getattr(self, name)}.")
        self._gpu_names = _gpu_names(self.workers, self.gpus)
        # Simple, as a signal's handler may add to it while it is read.
        self._events: queue.SimpleQueue = queue.SimpleQueue()

    def run(self) -> int:
        """Gives the exit code: 0 if all workers ended well, else the first bad one.

        SIGINT and SIGTERM are passed on to the workers. Call it in the main thread.
        """
        command = list(self.command)
        with self._signals():
            for left in range(self.restarts, -1, -1):
                code = self._attempt(command)
                if code in (0, MISTAKE) or self._stopped_by:
                    break
                if left:
                    command = [*self.command, *([] if RESUME in self.command else [RESUME])]
                    self.write(f"launch: starting all workers again ({left} restarts left)")
        return 128 + self._stopped_by if self._stopped_by else code

    @contextlib.contextmanager
    def _signals(self):
        self._stopped_by = 0
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {
            number: signal.signal(number, lambda got, _: self._events.put(("signal", got)))
            for number in numbers
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _attempt(self, command: list[str]) -> int:
        """Starts all workers and gives the exit code when all have ended."""
        environments = worker_environments(self.workers)
        started: dict[int, subprocess.Popen] = {}
        readers: list[threading.Thread] = []
        try:
            for number, environment in enumerate(environments):
                started[number] = self._start(number, command, environment, readers)
            return self._wait(started)
        finally:
            # Whatever happened here, nobody is left behind.
            for process in started.values():
                _signal(process, signal.SIGKILL)  # helpers of one that has ended, too
            for reader in readers:
                reader.join(timeout=GRACE)

    def _start(self, number: int, command, environment, readers) -> subprocess.Popen:
        if self._gpu_names is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpu_names[number]
        process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # so that a terminal's Ctrl-C comes once, from here
        )
        reader = threading.Thread(target=self._show, args=(number, process), daemon=True)
        waiter = threading.Thread(target=self._tell_end, args=(number, process), daemon=True)
        reader.start()
        waiter.start()
        readers.append(reader)
        return process

    def _show(self, number: int, process) -> None:
        with process.stdout as lines:
            for line in lines:
                self.write(f"[{number}] {line.rstrip()}")

    def _tell_end(self, number: int, process) -> None:
        code = process.wait()
        self._events.put(("ended", (number, process, code)))

    def _wait(self, running: dict[int, subprocess.Popen]) -> int:
        """Waits until all have ended; the first that fails, or a signal, ends the others."""
        running, result, ending = dict(running), 0, False
        while running:
            try:
                kind, what = self._events.get(timeout=GRACE if ending else None)
            except queue.Empty:
                for number, process in running.items():
                    self.write(f"launch: worker {number} does not end and is killed")
                    _signal(process, signal.SIGKILL)
                continue
            if kind == "signal":
                self._stopped_by, ending = what, True
                self.write(f"launch: received {signal.Signals(what).name}, ending all workers")
                for process in running.values():
                    _signal(process, what)
                continue
            number, process, code = what
            if running.get(number) is not process:
                continue  # of an earlier attempt
            del running[number]
            if code and not result:
                result = code if code > 0 else 128 - code
                self.write(f"launch: worker {number} {_ended_how(code)}")
            if code and not ending:
                ending = True
                for process in running.values():
                    _signal(process, signal.SIGTERM)
        return result


def _bind(each: socket.socket) -> None:
    """Binds a socket to a port that no outgoing connection is given, till a worker takes it."""
    for port in random.sample(PORTS, len(PORTS)):
        with contextlib.suppress(OSError):
            each.bind(("127.0.0.1", port))
            return
    raise InputError(f"There is no free port from {PORTS[0]} to {PORTS[-1]} on this machine.")


def worker_environments(workers: int) -> list[dict[str, str]]:
    """Gives each worker its TF_CONFIG, with addresses on this machine that are free now."""
    if workers == 1:
        return [{}]
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(workers)]
        for each in sockets:
            _bind(each)
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    cluster = {"worker": addresses}
    return [
        {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})}
        for index in range(workers)
    ]


def multi_worker_command(words: Sequence[str], *, workers: int) -> list[str]:
    """Gives the command of a worker for words as `llama-keras` takes them.

    Raises:
        InputError: they are no training run, or choose a strategy themselves.
    """
    if not words or words[0] not in ("train", "pretrain"):
        raise InputError(
            "launch starts `train` and `pretrain`, such as `llama-keras launch --workers 2 train "
            f"sst2 --output runs/sst2`; received {' '.join(words)!r}."
        )
    if any(word.split("=")[0] == "--strategy" for word in words):
        raise InputError("launch adds --strategy multi_worker by itself; leave --strategy out.")
    added = ["--strategy", "multi_worker"] if workers > 1 else []
    return [sys.executable, "-m", "llama_keras.cli", *words, *added]


def _gpu_names(workers: int, gpus: int | None) -> list[str] | None:
    if gpus is None:
        return None
    if gpus < 0:
        raise InputError(f"gpus must be 0 or more; received {gpus}.")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(i) for i in range(workers * gpus)]
    if len(names) < workers * gpus:
        raise InputError(
            f"{workers} workers with {gpus} GPUs each need {workers * gpus}, but "
            f"CUDA_VISIBLE_DEVICES names {len(names)}: {visible}."
        )
    return [",".join(names[i * gpus : (i + 1) * gpus]) for i in range(workers)]


def _signal(process: subprocess.Popen, number: int) -> None:
    # To its session, whose helpers (readers of data) would keep the pipe open.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _ended_how(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}"
    return f"was ended by {signal.Signals(-code).name}"
