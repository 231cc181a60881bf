"""The harness: asks a target for every example of a suite, scores, keeps the record."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_keras.errors import InputError
from llama_keras.eval.cache import AnswerCache
from llama_keras.eval.differences import Differences
from llama_keras.eval.jobs import Job, check_fits, checked_answer, prepare, size_of, with_shots
from llama_keras.eval.kinds import METRIC_NAMES, get_kind
from llama_keras.eval.progress import progress_bar
from llama_keras.eval.record import Record, Sample, Samples, digest
from llama_keras.eval.requests import Answer, Request, Target, described
from llama_keras.eval.results import Result, merged_results, peak_memory, versions
from llama_keras.eval.suite import Suite
from llama_keras.eval.targets import open_target

SEED = 0
DRIFT = 4
# Beyond this a number is said to change with the batch.
_DRIFT_TOLERANCE = 1e-3
# Answers that are too dear to be asked for twice.
_NO_DRIFT = ("generate_until", "loglikelihood_rolling")
# Examples whose answers reach the disk together; those of like length stand together.
_CHUNK = 128


def evaluate(suite: str | Path | Suite, **arguments: Any) -> Result:
    """Returns how well a model does on a suite; see `evaluate_suites` for the arguments.

    Example:
    ```python
    from llama_keras.eval import evaluate

    result = evaluate("demo_sentiment", model="runs/demo")  # doctest: skip
    ```
    """
    return evaluate_suites([suite], **arguments)[0]


def evaluate_suites(
    suites: Sequence[str | Path | Suite],
    *,
    model: str | Path | Target,
    data: str | Path | None = None,
    limit: int | None = None,
    shots: int | None = None,
    batch_size: int = 32,
    output: str | Path | None = None,
    cache: str | Path | None = None,
    seed: int = SEED,
    drift: int = DRIFT,
    show_progress: bool = True,
    **settings: Any,
) -> list[Result]:
    """Returns how well a model does on some suites.

    Args:
        suites: Suites, names of shipped ones, or YAML files.
        model: What `targets.open_target` takes, or a target.
        data: Examples to take in place of the suite's own (of one suite); its columns, labels and
            metrics stay.
        limit: Take the first examples only.
        shots: Worked examples before each prompt, in place of what the suites say.
        batch_size: Examples asked for at once, where the target does not choose by length.
        output: A folder for the record (see `record`). Where it holds the beginning of the same
            evaluation, that is gone on with; where it is finished, its results are returned.
        cache: A file that keeps answers for later evaluations of the same weights; not for
            servers, which do not tell their weights.
        seed: Of the bootstrap.
        drift: So many examples are asked again, one at a time, to see what the batches change;
            0 does not.
        show_progress: Show a bar with rate and remaining time, if standard error is a terminal.
        **settings: Of the target, such as `dtype`.

    Raises:
        InputError: Something of the above is not there or does not fit together: the output holds
            another evaluation, the labels of data, suite and model differ.
        UnavailableError: A server went away; the same call goes on where this one stopped.
    """
    for name, value in (("limit", limit), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1, got {value}.")
    if not suites or (data is not None and len(suites) > 1):
        raise InputError("Name at least one suite; with data in place of its own just one.")
    loaded = [with_shots(suite, shots) for suite in suites]
    if len({suite.name for suite in loaded}) < len(loaded):
        raise InputError(f"A suite is named twice: {[suite.name for suite in loaded]}.")
    jobs = [prepare(suite, data, limit) for suite in loaded]
    target = open_target(model, **settings)
    asking = _Asking(limit=limit, batch_size=batch_size, seed=seed, drift=drift)
    try:
        return _evaluate(jobs, target, asking, output, cache, visible=show_progress)
    finally:
        if target is not model and hasattr(target, "close"):
            target.close()  # type: ignore[attr-defined]


@dataclass(frozen=True)
class _Asking:
    """How examples are asked and scored, the same for all suites; see `evaluate_suites`."""

    limit: int | None
    batch_size: int
    seed: int
    drift: int


def _evaluate(
    jobs: Sequence[Job],
    target: Target,
    asking: _Asking,
    output: str | Path | None,
    cache: str | Path | None,
    *,
    visible: bool,
) -> list[Result]:
    for job in jobs:
        check_fits(job, target)
    model = described(target)
    record = Record(output, _plan(jobs, model, asking)) if output is not None else None
    answers = _open_cache(cache, model)
    results = []
    for job in jobs:
        known = record.finished(job.suite.name) if record else None
        if known is None:
            samples = record.begin(job.suite.name) if record else Samples()
            work = _Work(job, target, samples, answers, asking.batch_size)
            work.run(visible=visible)
            known = _result(work, target, model, asking)
            if record:
                record.finish(known, samples.done.values())
        results.append(known)
    if record:
        configs = {job.suite.name: job.suite.model_dump() for job in jobs}
        record.close(merged_results(results, configs=configs))
    return results


def _plan(jobs: Sequence[Job], model: dict[str, Any], asking: _Asking) -> dict[str, Any]:
    return {
        "suites": {job.suite.name: digest(job.suite.model_dump()) for job in jobs},
        "limit": asking.limit,
        "seed": asking.seed,
        "target": {
            "kind": model["kind"],
            # Files may move; a server has nothing but its place.
            "location": model["location"] if model["sha256"] is None else None,
            "sha256": model["sha256"],
        },
        "requests": {job.suite.name: digest(job.requests) for job in jobs},
    }


def _open_cache(file: str | Path | None, model: dict[str, Any]) -> AnswerCache | None:
    if file is None:
        return None
    if model["sha256"] is None:
        raise InputError(
            f"{model['location']} does not tell its weights, so answers cannot be kept for it; "
            "leave the cache out."
        )
    # The SHA-256 covers what a model computes in, so precisions share no answers.
    return AnswerCache(file, fingerprint=model["sha256"])


# Fields of a row that a sample holds under another name, or not at all.
ELSEWHERE = ("expected", "predicted", "texts", "vectors")


class _Work:
    """Asks what has not been answered yet.

    Attributes:
        seconds: wall time of the target's answers.
        asked: requests that the target answered; `cached`: those from the cache.
    """

    def __init__(
        self,
        job: Job,
        target: Target,
        samples: Samples,
        cache: AnswerCache | None,
        batch_size: int,
    ):
        self.job, self.samples = job, samples
        self._target, self._cache, self._batch_size = target, cache, batch_size
        self.seconds, self.asked, self.cached = 0.0, 0, 0

    def run(self, *, visible: bool) -> None:
        """Asks for all that is left."""
        left = [n for n in range(len(self.job.docs)) if n not in self.samples.done]
        # Texts of like length go together, which spares padding whatever the target is.
        left.sort(key=lambda number: -size_of(self.job.requests[number]))
        chunk = max(_CHUNK, self._batch_size)
        with progress_bar(self.job.suite.name, total=len(left), visible=visible) as advance:
            for first in range(0, len(left), chunk):
                numbers = left[first : first + chunk]
                requests = [r for number in numbers for r in self.job.requests[number]]
                answers = iter(self._answers(requests))
                self.samples.add(
                    [
                        self._sample(number, [next(answers) for _ in self.job.requests[number]])
                        for number in numbers
                    ]
                )
                advance(len(numbers))

    def drift(self, count: int) -> dict[str, Any] | None:
        """Asks some examples again, each by itself; see `Result.drift`."""
        total, kind = len(self.job.docs), self.job.kind.request
        if not count or not self.asked or total < 2 or kind in _NO_DRIFT:
            return None
        count = min(count, total)
        numbers = sorted({round(at * (total - 1) / max(count - 1, 1)) for at in range(count)})
        differences, others = Differences(_DRIFT_TOLERANCE), []
        for number in numbers:
            asked = self.job.requests[number]
            again = [self._target.ask(kind, [request], batch_size=1)[0] for request in asked]
            pairs = zip(self.samples.done[number]["resps"], again, strict=True)
            if any([differences.between(*pair) for pair in pairs]):
                others.append(number)
        return {"examples": len(numbers), "largest": differences.largest, "differing": others}

    def _answers(self, requests: list[Request]) -> list[Answer]:
        kind = self.job.kind.request
        found: list[Answer | None] = [None] * len(requests)
        if self._cache is not None:
            found = self._cache.find(kind, requests)
        missing = [number for number, answer in enumerate(found) if answer is None]
        self.cached += len(requests) - len(missing)
        if missing:
            asked = [requests[number] for number in missing]
            start = time.perf_counter()
            given = self._target.ask(kind, asked, batch_size=self._batch_size)
            self.seconds += time.perf_counter() - start
            self.asked += len(asked)
            for number, answer in zip(missing, given, strict=True):
                found[number] = checked_answer(answer, kind, requests[number], self._target)
            if self._cache is not None:
                self._cache.keep(kind, asked, given)
        return [answer for answer in found if answer is not None]

    def _sample(self, number: int, answers: list[Answer]) -> Sample:
        job = self.job
        doc, requests = job.docs[number], job.requests[number]
        row = job.kind.row(doc, job.suite, answers)
        sample: Sample = {
            "doc_id": number,
            "doc": doc,
            "target": row.get("expected"),
            "arguments": requests,
            "resps": answers,
            "filtered_resps": row.get("predicted"),
            "doc_hash": digest(doc),
            "prompt_hash": digest(requests),
            **{name: value for name, value in row.items() if name not in ELSEWHERE},
        }
        if job.shots[number]:
            sample["shots"] = job.shots[number]
        return sample


def rows_of(suite: Suite, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Gives what is known of each example, from its sample alone."""
    kind = get_kind(suite.task)
    return [kind.row(sample["doc"], suite, sample["resps"]) for sample in samples]


def metrics_of(suite: Suite, rows: Sequence[dict[str, Any]], *, seed: int) -> dict[str, Any]:
    """Gives the suite's metrics over rows; those that do not apply are left out unless named."""
    kind = get_kind(suite.task)
    found = {}
    for name in suite.metrics or METRIC_NAMES[suite.task]:
        try:
            found[name] = kind.metrics[name].compute(rows, suite, seed)
        except InputError:
            if name in suite.metrics:
                raise
    return found


def _result(work: _Work, target: Target, model: dict[str, Any], asking: _Asking) -> Result:
    job = work.job
    samples = [work.samples.done[number] for number in range(len(job.docs))]
    rows = rows_of(job.suite, samples)
    first = target.first_tokens(job.kind.request, job.requests[0][0])
    truncated = sum("truncated" in answer for sample in samples for answer in sample["resps"])
    return Result(
        suite=job.suite.name,
        version=job.suite.version,
        task=job.suite.task,
        n=len(job.docs),
        original_n=job.original,
        limit=asking.limit,
        shots=job.suite.shots.count,
        metrics=metrics_of(job.suite, rows, seed=asking.seed),
        higher_is_better={
            name: metric.higher_is_better for name, metric in job.kind.metrics.items()
        },
        labels=job.suite.labels or target.labels or [],
        model=model,
        data={"source": job.source, "sha256": digest(job.docs)},
        prompts_sha256=digest(job.requests),
        first_tokens=first,
        truncated=truncated,
        seconds=work.seconds,
        asked=work.asked,
        cached=work.cached,
        resumed=work.samples.resumed,
        requests_per_second=work.asked / work.seconds if work.seconds else 0.0,
        peak_memory_bytes=peak_memory(),
        drift=work.drift(asking.drift),
        seed=asking.seed,
        warnings=_warnings(target, first, truncated),
        versions={**versions(), **job.kind.signatures()},
    )


def _warnings(target: Target, first: list[int] | None, truncated: int) -> list[str]:
    found = []
    begin = getattr(target, "bos_id", None)
    if first and begin is not None:
        if first[:2] == [begin, begin]:
            found.append("The first request begins with two tokens that begin a text.")
        if getattr(target, "adds_bos", False) and first[0] != begin:
            found.append("The first request lacks the token that begins a text.")
    if truncated:
        found.append(f"{truncated} requests lost their beginning: the model's context is short.")
    return found
