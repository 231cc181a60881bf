"""Whether two targets answer alike: the same requests to both, and every answer that differs."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_keras.errors import InputError
from llama_keras.eval.differences import Differences
from llama_keras.eval.jobs import check_fits, checked_answer, prepare, size_of, with_shots
from llama_keras.eval.precision import tolerance_for
from llama_keras.eval.progress import progress_bar
from llama_keras.eval.requests import Answer, Request, Target, described
from llama_keras.eval.suite import Suite
from llama_keras.eval.targets import open_target

# Examples asked for at once, as in the harness.
_CHUNK = 128


@dataclass(frozen=True)
class Difference:
    """A request that the targets answer differently.

    Attributes:
        doc_id, request_id: the number of the example, and of the request among the example's.
        request: what was asked.
        keys: what differs, such as `label` or `entities[].start`.
        a, b: the answers.
    """

    doc_id: int
    request_id: int
    request: Request
    keys: list[str]
    a: Answer
    b: Answer


@dataclass(frozen=True)
class Parity:
    """How far two targets' answers to a suite are apart.

    Attributes:
        suite: its name.
        a, b: each target, see `requests.described`.
        n, requests: examples and requests asked.
        tolerance: see `parity`.
        tolerance_reason: why it is that.
        largest: the largest difference of the numbers under each key that both give.
        unshared: keys that one target alone gives, and which (`a` or `b`): not compared.
        differences: in the order of the examples.
    """

    suite: str
    a: dict[str, Any]
    b: dict[str, Any]
    n: int
    requests: int
    tolerance: float
    tolerance_reason: str
    largest: dict[str, float]
    unshared: dict[str, str]
    differences: list[Difference]

    @property
    def differing(self) -> list[int]:
        """The numbers of the examples that differ."""
        return sorted({difference.doc_id for difference in self.differences})

    def to_dict(self) -> dict[str, Any]:
        """Gives plain values, ready for JSON."""
        return {**dataclasses.asdict(self), "differing": self.differing}


def parity(
    suite: str | Path | Suite,
    *,
    a: str | Path | Target,
    b: str | Path | Target,
    data: str | Path | None = None,
    limit: int | None = None,
    shots: int | None = None,
    tolerance: float | None = None,
    batch_size: int = 32,
    show_progress: bool = True,
    **settings: Any,
) -> Parity:
    """Gives what differs between two targets' answers to the same requests.

    Texts, labels, places and lists must be equal; other numbers may differ by `tolerance` times the
    larger of 1 and their size. What one target does not tell (`None`, or no such key) is not
    compared.

    Args:
        suite, data, limit, shots, batch_size, show_progress: see `harness.evaluate_suites`.
        a, b: the targets, as `harness.evaluate_suites` takes `model`.
        tolerance: of numbers; None takes 1e-4, or 1e-2 where one of them computes in 16 bits.
        **settings: of those targets that take them.

    Raises:
        InputError, UnavailableError: see `harness.evaluate_suites`.

    Example:
    ```python
    from llama_keras.eval.parity import parity

    found = parity("sst2", a="runs/sst2", b="runs/sst2/export/sst2")  # doctest: skip
    print(found.differing, found.largest)  # doctest: skip
    ```
    """
    if tolerance is not None and not tolerance >= 0:
        raise InputError(f"tolerance must be at least 0, got {tolerance}.")
    for name, value in (("limit", limit), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1, got {value}.")
    job = prepare(with_shots(suite, shots), data, limit)
    targets: list[Target] = []
    try:
        for model in (a, b):
            targets.append(_opened(model, settings))
            check_fits(job, targets[-1])
        allowed = tolerance_for(targets, tolerance)
        asked = _Comparison(job, targets, allowed.value)
        asked.run(batch_size, visible=show_progress)
    finally:
        for target, model in zip(targets, (a, b), strict=False):
            if target is not model and hasattr(target, "close"):
                target.close()  # type: ignore[attr-defined]
    return Parity(
        suite=job.suite.name,
        a=described(targets[0]),
        b=described(targets[1]),
        n=len(job.docs),
        requests=sum(map(len, job.requests)),
        tolerance=allowed.value,
        tolerance_reason=allowed.reason,
        largest=dict(sorted(asked.found.largest.items())),
        unshared=dict(sorted(asked.found.unshared.items())),
        differences=sorted(asked.differences, key=lambda d: (d.doc_id, d.request_id)),
    )


def _opened(model: str | Path | Target, settings: dict[str, Any]) -> Target:
    """Opens a target with the settings, or without where it takes none: they may be the other's."""
    try:
        return open_target(model, **settings)
    except InputError as error:
        if not settings or "takes no setting" not in str(error):
            raise
        return open_target(model)


class _Comparison:
    """Asks both targets and keeps what differs."""

    def __init__(self, job: Any, targets: Sequence[Target], tolerance: float):
        self._job, self._targets = job, targets
        self.found = Differences(tolerance)
        self.differences: list[Difference] = []

    def run(self, batch_size: int, *, visible: bool) -> None:
        """Asks for all examples, those of like length together."""
        requests = self._job.requests
        order = sorted(range(len(requests)), key=lambda number: -size_of(requests[number]))
        name, chunk = f"{self._job.suite.name}: parity", max(_CHUNK, batch_size)
        with progress_bar(name, total=len(order), visible=visible) as advance:
            for start in range(0, len(order), chunk):
                numbers = order[start : start + chunk]
                self._compare(numbers, batch_size)
                advance(len(numbers))

    def _compare(self, numbers: Sequence[int], batch_size: int) -> None:
        places = [(n, at) for n in numbers for at in range(len(self._job.requests[n]))]
        asked = [self._job.requests[n][at] for n, at in places]
        kind = self._job.kind.request
        answers = []
        for target in self._targets:
            given = target.ask(kind, asked, batch_size=batch_size)
            for answer, request in zip(given, asked, strict=True):
                checked_answer(answer, kind, request, target)
            answers.append(given)
        for (doc, number), request, a, b in zip(places, asked, *answers, strict=True):
            if keys := self.found.between(a, b):
                self.differences.append(Difference(doc, number, request, keys, a, b))
