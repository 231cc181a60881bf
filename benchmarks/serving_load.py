"""Clients that ask a server all the time and check every answer; the versions that may answer."""

import asyncio
import statistics
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from random import Random
from typing import Any

from benchmarks.serving_models import SIGNATURES, TEXTS, is_same, row_of
from llama_keras.serving.client import AsyncClient, ServingError

# Seconds after which a request that is still refused counts as lost.
PATIENCE = 60.0
_LATER = (None, 429, 503)


@dataclass
class Lives:
    """Which variant of each model may answer when.

    Attributes:
        expected: model, variant -> the answers to `TEXTS`.
        known: of each model, variant and when it was first and last alive.
    """

    expected: dict[str, dict[str, list[Any]]]
    known: dict[str, list[list[Any]]] = field(default_factory=lambda: defaultdict(list))

    def begin(self, name: str, variant: str) -> None:
        """Says that a variant may answer from now on."""
        self.known[name].append([variant, time.monotonic(), float("inf")])

    def end_older(self, name: str) -> None:
        """Says that only the newest variant answers requests that begin from now on."""
        for life in self.known[name][:-1]:
            life[2] = min(life[2], time.monotonic())

    def may_be(self, name: str, texts: list[int], rows: list[Any], begun: float) -> bool:
        """Whether the rows are what one variant answers that was alive since `begun`."""
        for variant, start, end in self.known[name]:
            if start <= time.monotonic() and end >= begun:
                wanted = self.expected[name][variant]
                if all(is_same(row, wanted[at]) for row, at in zip(rows, texts, strict=True)):
                    return True
        return False


@dataclass
class Tally:
    """What became of the requests.

    Attributes:
        wrong: answers that no version gives which was alive.
        lost: requests that never got an answer, by reason.
        excused: failures while the server was down, which were asked again.
        failed: failures at other times, which were asked again, by reason.
        busy: answers 429, asked again.
        seconds: (protocol, model) -> of each answer.
    """

    wrong: int = 0
    lost: Counter = field(default_factory=Counter)
    excused: int = 0
    failed: Counter = field(default_factory=Counter)
    busy: int = 0
    seconds: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    examples: list[str] = field(default_factory=list)

    @property
    def answered(self) -> int:
        """The number of answers."""
        return sum(map(len, self.seconds.values()))

    def percentiles(self) -> dict[str, dict[str, float]]:
        """Gives count, p50 and p99 in milliseconds by protocol and model, and of all."""
        groups = {" ".join(key): values for key, values in sorted(self.seconds.items())}
        groups["all"] = [value for values in self.seconds.values() for value in values]
        return {key: _spread(values) for key, values in groups.items() if values}


def _spread(values: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100) if len(values) > 1 else values * 99
    return {
        "n": len(values),
        "p50_ms": round(cuts[49] * 1e3, 2),
        "p99_ms": round(cuts[98] * 1e3, 2),
    }


class Load:
    """Clients of one server.

    Args:
        urls: (scheme, model) -> the model's URL.
        lives: what may answer.
        clients: how many; every other one asks over gRPC.
    """

    def __init__(self, urls: dict[tuple[str, str], str], *, lives: Lives, clients: int):
        self.tally = Tally()
        self.down: list[list[float]] = []  # when the server was away: from, to
        self._urls, self._lives, self._clients = urls, lives, clients

    async def run(self, seconds: float) -> float:
        """Asks for some seconds, then lets what is under way end; gives how long that took."""
        begun = time.monotonic()
        loops = [self._ask_on(number, begun + seconds) for number in range(self._clients)]
        await asyncio.gather(*loops)
        return time.monotonic() - begun

    async def _ask_on(self, number: int, end: float) -> None:
        random, scheme = Random(number), ("http", "grpc")[number % 2]
        clients = {
            name: AsyncClient(self._urls[scheme, name], timeout=30, retries=0)
            for name in SIGNATURES
        }
        try:
            while time.monotonic() < end:
                name = random.choice(list(SIGNATURES))
                texts = random.choices(range(len(TEXTS)), k=random.randint(1, 4))
                await self._ask(clients[name], scheme, name, texts)
        finally:
            for client in clients.values():
                await client.close()

    async def _ask(self, client: AsyncClient, scheme: str, name: str, texts: list[int]) -> None:
        rows = [row_of(name, TEXTS[at]) for at in texts]
        first = time.monotonic()
        while True:
            begun = time.monotonic()
            try:
                found = await client.predict(rows, signature=SIGNATURES[name])
            except ServingError as error:
                if not self._again(error, scheme, begun, first):
                    return
                await asyncio.sleep(0.1)
                continue
            self.tally.seconds[scheme, name].append(time.monotonic() - begun)
            if not self._lives.may_be(name, texts, found, begun):
                self.tally.wrong += 1
                self.tally.examples.append(f"{scheme} {name} {texts}: {str(found)[:300]}")
            return

    def _again(self, error: ServingError, scheme: str, begun: float, first: float) -> bool:
        """Counts a failure; says whether the request is asked again."""
        tally, now = self.tally, time.monotonic()
        reason = f"{scheme} {error.status}: {error.message.splitlines()[0][-100:]}"
        if error.status == 429:
            tally.busy += 1
        elif any(begun <= end and now >= start for start, end in self.down):
            tally.excused += 1
        else:
            tally.failed[reason] += 1
        if error.status in _LATER and now - first < PATIENCE:
            return True
        tally.lost[reason] += 1
        return False
