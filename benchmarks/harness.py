"""Lets the libraries of a suite take turns, each in its own process, and compares their speed."""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.suite import Claim, Suite, worker_environment

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Figure:
    """One library's mode under one claim."""

    claim: str
    library: str
    mode: str
    amount: float
    seconds: list[float] = field(default_factory=list)
    """Of each round but the first, which warms up."""
    error: str = ""
    """Why there is no figure."""

    @property
    def speed(self) -> float:
        """Units per second, median over the rounds; 0 where there is none."""
        return self.amount / statistics.median(self.seconds) if self.seconds else 0.0


@dataclass(frozen=True)
class Comparison:
    """A claim with what was measured for it."""

    claim: Claim
    figures: list[Figure]
    ours: Figure | None
    """Our fastest mode."""
    peer: Figure | None
    """The fastest mode of the claim's peers."""
    ratios: list[float]
    """Ours over the peer's, round by round."""

    @property
    def ratio(self) -> float | None:
        """The median of `ratios`."""
        return statistics.median(self.ratios) if self.ratios else None

    def to_dict(self) -> dict[str, Any]:
        """Gives all of it as plain values."""
        return {
            **asdict(self.claim),
            "ratio": self.ratio,
            "ratios": self.ratios,
            "ours": self.ours and self.ours.mode,
            "peer": self.peer and f"{self.peer.library} {self.peer.mode}",
            "figures": [{**asdict(figure), "speed": figure.speed} for figure in self.figures],
        }


class Worker:
    """A library's process, see `worker.py`."""

    def __init__(self, suite: str, library: str, *, python: str):
        self.library = library
        self._errors = tempfile.TemporaryFile("w+", errors="replace")
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.worker", suite, library],
            cwd=ROOT,
            env=worker_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def ask(self, question: Any) -> dict[str, Any]:
        """Gives the answer to one line; it has an "error" where the library failed."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin and stdout
        try:
            stdin.write(json.dumps(question) + "\n")
            stdin.flush()
            if line := stdout.readline():
                return json.loads(line)
        except BrokenPipeError:
            pass
        code = self._process.wait()
        self._errors.seek(0)
        last = self._errors.read().strip().splitlines()[-1:]
        return {"error": f"the process ended with code {code}: {''.join(last)}"[:300]}

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        self._errors.close()


def measure(
    name: str,
    *,
    options: dict[str, Any],
    rounds: int,
    peer_python: str,
    say: Callable[[str], None],
) -> list[Comparison]:
    """Runs one suite.

    Args:
        name: of a module of this package that has a `SUITE`.
        options: for the suite.
        rounds: in each, every mode of every library runs once; one more warms up.
        peer_python: interpreter that has the libraries of kind "peer".
        say: is told what goes on.

    Raises:
        RuntimeError: our own runs cannot be built, or a library computes something else.
    """
    suite: Suite = import_module(f"benchmarks.{name}").SUITE
    pythons = {"ours": sys.executable, "peer": peer_python}
    workers: dict[str, Worker] = {}
    try:
        for library, how in suite.libraries.items():
            workers[library] = Worker(name, library, python=pythons[how.python])
        figures = _build(suite, workers, options=options, say=say)
        for round_ in range(rounds + 1):
            say(f"{name}: round {round_} of {rounds}" if round_ else f"{name}: warming up")
            for figure in figures:
                if not figure.error:
                    answer = workers[figure.library].ask([figure.claim, figure.mode])
                    figure.error = answer.get("error", "")
                    if round_ and not figure.error:
                        figure.seconds.append(answer["seconds"])
    finally:
        for worker in workers.values():
            worker.close()
    return [_compare(claim, figures, ours=next(iter(workers))) for claim in suite.claims]


def _build(suite: Suite, workers: dict[str, Worker], *, options, say) -> list[Figure]:
    figures: list[Figure] = []
    results: dict[str, str] = {}
    for library, worker in workers.items():
        say(f"building {library}")
        built = worker.ask(options)
        if "error" in built:
            if not figures:
                raise RuntimeError(f"{library}: {built['error']}")
            figures += [
                Figure(claim.name, library, "", 0.0, error=built["error"]) for claim in suite.claims
            ]
            continue
        options = {**options, **built["handover"]}
        if built["results"]:
            results[library] = built["results"]
        figures += [
            Figure(claim, library, mode, built["amounts"][claim])
            for claim, modes in built["modes"].items()
            for mode in modes
        ]
    if len(set(results.values())) > 1:
        raise RuntimeError(f"{' and '.join(results)} give different results: nothing to compare.")
    return figures


def _compare(claim: Claim, figures: list[Figure], *, ours: str) -> Comparison:
    own = [figure for figure in figures if figure.claim == claim.name]

    def fastest(libraries: tuple[str, ...]) -> Figure | None:
        known = [f for f in own if f.library in libraries and f.speed and not f.error]
        return max(known, key=lambda figure: figure.speed, default=None)

    our, peer = fastest((ours,)), fastest(claim.peers)
    ratios = []
    if our and peer:
        ratios = [
            (our.amount / mine) / (peer.amount / theirs)
            for mine, theirs in zip(our.seconds, peer.seconds, strict=True)
        ]
    return Comparison(claim, own, our, peer, ratios)
