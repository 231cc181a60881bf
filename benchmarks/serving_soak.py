"""Soak test of `llama-keras serve` on loopback: many clients, versions swapped, the process killed.

    python -m benchmarks.serving_soak --seconds 180 --clients 32

Three tiny models (classification, tagging, generation) are exported in two variants with different
answers. Clients over REST and gRPC ask for rows of all three without pause, and check each answer
against the variants that were alive while they waited. Meanwhile new versions are put into the
folders, and half way the process is killed (SIGKILL) and started again. Before that, two shorter
runs without events compare throughput and latency with and without batching.

Exit status 1: a wrong answer, a lost request, or a failed request that no kill explains.
"""

import argparse
import asyncio
import itertools
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.serving_load import Lives, Load, Tally
from benchmarks.serving_models import SIGNATURES, VARIANTS
from llama_keras.serving.client import AsyncClient, ServingError

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 120.0  # that a server may take to load
WARM_SECONDS = 8.0  # of load before anything is measured: each shape's first call is slow
SWAPS = 12  # versions that are put in during a soak, at most
GROWTH = 0.10  # of the memory, from its second quarter to its last, that still counts as flat


class Server:
    """`llama-keras serve` as a process, on ports that stay the same.

    Args:
        models: folder with a folder for each model.
        batching: whether requests are put together.
        log: where its standard output and error go.
    """

    def __init__(self, models: Path, *, batching: bool, log: Path):
        self._models, self._batching, self._log = models, batching, log
        self.port, self.grpc_port = _free_port(), _free_port()
        self.starts: list[float] = []
        self._process: subprocess.Popen | None = None

    @property
    def urls(self) -> dict[tuple[str, str], str]:
        """(scheme, model) -> URL."""
        rest = {("http", n): f"http://127.0.0.1:{self.port}/v1/models/{n}" for n in SIGNATURES}
        return rest | {("grpc", n): f"grpc://127.0.0.1:{self.grpc_port}/{n}" for n in SIGNATURES}

    async def start(self) -> None:
        """Starts the process and waits until all models answer."""
        command = [sys.executable, "-m", "llama_keras.cli", "serve"]
        command += [str(self._models / name) for name in SIGNATURES]
        command += ["--port", str(self.port), "--grpc-port", str(self.grpc_port)]
        command += [] if self._batching else ["--no-batching"]
        begun = time.monotonic()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=log,
                stderr=log,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            )
        while not await self._answers():
            if self._process.poll() is not None or time.monotonic() - begun > START_SECONDS:
                raise RuntimeError(f"The server did not start:\n{self._log.read_text()[-2000:]}")
            await asyncio.sleep(0.1)
        self.starts.append(time.monotonic() - begun)

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Sends a signal and gives the exit status."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(timeout=60)

    def memory(self) -> float | None:
        """Gives the process's resident memory in MB; None where there is none."""
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text()  # type: ignore[union-attr]
            return int(status.partition("VmRSS:")[2].split()[0]) / 1024
        except (OSError, IndexError, AttributeError):
            return None

    async def versions(self, name: str) -> list[int]:
        """Gives the versions that answer; none where nobody does."""
        async with AsyncClient(self.urls["http", name], timeout=10, retries=0) as client:
            try:
                return await client.versions()
            except ServingError:
                return []

    async def _answers(self) -> bool:
        return all([await self.versions(name) for name in SIGNATURES])


class Soak:
    """One run: a server, its clients, and what happens to the server."""

    def __init__(self, exports: Path, work: Path, *, batching: bool, clients: int):
        self._exports, self._models = exports, work / "models"
        expected = json.loads((exports / "expected.json").read_text(encoding="utf-8"))
        self._lives = Lives(expected)
        self._numbers = dict.fromkeys(SIGNATURES, 0)
        self.server = Server(self._models, batching=batching, log=work / "server.log")
        self.load = Load(self.server.urls, lives=self._lives, clients=clients)
        self.memory: list[list[float]] = [[]]  # a list for each process
        self.swapped = 0
        self._turn = asyncio.Lock()  # one event at a time

    async def run(self, seconds: float, *, events: bool) -> dict[str, Any]:
        """Asks for some seconds; gives what was seen."""
        for name in SIGNATURES:
            self._publish(name)
        await self.server.start()
        watcher = asyncio.create_task(self._watch(seconds))
        try:
            await self.load.run(min(WARM_SECONDS, seconds / 4))
            self.load.tally.seconds.clear()
            happening = [self._swap_on, self._kill_once] if events else []
            end = time.monotonic() + seconds
            took, *_ = await asyncio.gather(
                self.load.run(seconds), *(happen(end, seconds) for happen in happening)
            )
        finally:
            watcher.cancel()
            status = self.server.kill(signal.SIGTERM)
        return self._report(took, status)

    async def _swap_on(self, end: float, seconds: float) -> None:
        pause = seconds / SWAPS
        for name in itertools.cycle(SIGNATURES):
            await asyncio.sleep(pause)
            if time.monotonic() + pause > end:
                return
            async with self._turn:
                await self._swap(name)

    async def _kill_once(self, end: float, seconds: float) -> None:
        await asyncio.sleep(seconds / 2)
        async with self._turn:
            await self._kill()

    async def _swap(self, name: str) -> None:
        new = self._publish(name)
        for _ in range(600):
            if await self.server.versions(name) == [new]:
                break
            await asyncio.sleep(0.05)
        else:
            raise RuntimeError(f"{name} version {new} was not taken up")
        self._lives.end_older(name)
        shutil.rmtree(self._models / name / str(new - 1))
        self.swapped += 1

    async def _kill(self) -> None:
        down = [time.monotonic(), float("inf")]
        self.load.down.append(down)
        self.server.kill()
        await self.server.start()
        self.memory.append([])
        down[1] = time.monotonic() + 1.0  # connections find back

    async def _watch(self, seconds: float) -> None:
        while True:
            is_up = not self.load.down or self.load.down[-1][1] < time.monotonic()
            if is_up and (memory := self.server.memory()) is not None:
                self.memory[-1].append(memory)
            await asyncio.sleep(min(1.0, seconds / 20))

    def _publish(self, name: str) -> int:
        """Puts the other variant there as the next version, in one step; gives its number."""
        self._numbers[name] += 1
        number = self._numbers[name]
        variant = VARIANTS[number % len(VARIANTS)]
        source = next((self._exports / name / variant).glob("**/saved_model.pb")).parent
        temporary = self._models / name / f"new-{number}"
        shutil.copytree(source, temporary)
        self._lives.begin(name, variant)
        temporary.rename(self._models / name / str(number))
        return number

    def _report(self, took: float, status: int) -> dict[str, Any]:
        tally: Tally = self.load.tally
        lives = [_memory(values) for values in self.memory if len(values) >= 4]
        return {
            "seconds": round(took, 1),
            "answered": tally.answered,
            "per_second": round(tally.answered / took, 1),
            "wrong": tally.wrong,
            "lost": dict(tally.lost),
            "failed": dict(tally.failed),
            "busy": tally.busy,
            "excused": tally.excused,
            "down_seconds": [round(end - start, 1) for start, end in self.load.down],
            "swapped": self.swapped,
            "memory": lives,
            "starts": [round(value, 1) for value in self.server.starts],
            "exit_status": status,
            "latency": tally.percentiles(),
            "examples": tally.examples[:5],
        }


def _memory(values: list[float]) -> dict[str, Any]:
    quarter = len(values) // 4
    early = statistics.median(values[quarter : 2 * quarter])
    late = statistics.median(values[-quarter:])
    return {
        "first_mb": round(values[0]),
        "early_mb": round(early),
        "late_mb": round(late),
        "most_mb": round(max(values)),
        "flat": late <= early * (1 + GROWTH),
        "series_mb": [round(value) for value in values[:: max(1, len(values) // 30)]],
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_clean(report: dict[str, Any]) -> bool:
    """Whether no answer was wrong and no request lost or failed without a reason."""
    return not (report["wrong"] or report["lost"] or report["failed"] or report["exit_status"])


def table(reports: dict[str, dict[str, Any]]) -> str:
    """Gives the runs side by side as Markdown."""
    rows = [("", *reports)]
    for key in ("seconds", "answered", "per_second", "wrong", "lost", "failed", "busy", "excused"):
        rows.append((key, *(str(r[key] or 0) for r in reports.values())))
    for group in list(reports.values())[-1]["latency"]:
        cells = [r["latency"].get(group, {}) for r in reports.values()]
        shown = (f"{c['p50_ms']} / {c['p99_ms']} ms" if c else "" for c in cells)
        rows.append((f"p50 / p99 {group}", *shown))
    memory = (
        "; ".join(f"{m['early_mb']} → {m['late_mb']} MB" for m in r["memory"])
        for r in reports.values()
    )
    rows.append(("memory, 2nd → last quarter", *memory))
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


async def soak(exports: Path, *, seconds: float, clients: int, compared: float) -> dict[str, Any]:
    """Runs all; gives the reports by name.

    Args:
        exports: what `serving_models.prepare` wrote.
        seconds: of the run with events.
        clients: that ask at once.
        compared: seconds of each of the two runs before; 0 leaves them out.
    """
    plan = [("no batching", False, compared), ("batching", True, compared)] if compared else []
    reports: dict[str, Any] = {}
    for name, batching, length in [*plan, ("soak", True, seconds)]:
        with tempfile.TemporaryDirectory() as work:
            run = Soak(exports, Path(work), batching=batching, clients=clients)
            reports[name] = await run.run(length, events=name == "soak")
    return reports


def main(arguments: list[str] | None = None) -> int:
    """Prepares the models, runs, prints; gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving_soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=180.0, help="of the soak")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--compare-seconds", type=float, default=20.0, help="0: no comparison")
    parser.add_argument(
        "--models", type=Path, help="exports of an earlier run, or where to put them"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        exports = options.models or Path(temporary)
        if not (exports / "expected.json").is_file():
            exports.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, "-m", "benchmarks.serving_models", str(exports)]
            subprocess.run(command, cwd=ROOT, check=True)
        reports = asyncio.run(
            soak(
                exports,
                seconds=options.seconds,
                clients=options.clients,
                compared=options.compare_seconds,
            )
        )
    print(table(reports))
    if options.json:
        options.json.write_text(json.dumps(reports, indent=1) + "\n", encoding="utf-8")
    else:
        print(json.dumps(reports))
    return 0 if all(map(is_clean, reports.values())) else 1


if __name__ == "__main__":
    sys.exit(main())
