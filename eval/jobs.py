"""A suite made ready: its examples, and what is asked of a target for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_keras.errors import InputError
from llama_keras.eval.kinds import get_kind
from llama_keras.eval.kinds.kind import EvalKind
from llama_keras.eval.requests import ANSWERS, Answer, Doc, Request, Target
from llama_keras.eval.shots import shot_chooser
from llama_keras.eval.suite import Suite, load_suite


@dataclass(frozen=True)
class Job:
    """One suite, ready to be asked.

    Attributes:
        suite: with the labels of its data, where it names none.
        kind: of its task.
        docs: the examples.
        requests: of each example.
        shots: the numbers of each example's worked examples.
        original: how many examples the data have.
        source: where they come from.
    """

    suite: Suite
    kind: EvalKind
    docs: list[Doc]
    requests: list[list[Request]]
    shots: list[list[int]]
    original: int
    source: str


def with_shots(suite: str | Path | Suite, shots: int | None) -> Suite:
    """Gives a suite, read where it is a name or a file, with another number of worked examples.

    Raises:
        InputError: there is no such suite, or it takes none.
    """
    loaded = suite if isinstance(suite, Suite) else load_suite(suite)
    if shots is None:
        return loaded
    if not get_kind(loaded.task).prompted:
        raise InputError(f"{loaded.name} is a {loaded.task} suite; it takes no worked examples.")
    changed = loaded.shots.model_copy(update={"count": shots})
    return loaded.model_copy(update={"shots": changed})


def prepare(suite: Suite, data: str | Path | None, limit: int | None) -> Job:
    """Reads the examples and makes their requests.

    Args:
        suite: what is asked.
        data: examples to take in place of the suite's own.
        limit: take the first so many.

    Raises:
        InputError: the data are missing, malformed, or not the file that the suite names.
    """
    kind = get_kind(suite.task)
    source, split = (suite.data.source, suite.data.split) if data is None else (str(data), None)
    if data is None and suite.data.sha256 is not None:
        _check_file(suite)
    docs = kind.load(suite, source, split)
    if not docs:
        raise InputError(f"{source} holds no examples.")
    suite = suite.model_copy(update={"labels": suite.labels or kind.labels(docs)})
    pool = None
    if suite.shots.count and suite.shots.source is not None:
        pool = kind.load(suite, suite.shots.source, suite.shots.split)
    choose = shot_chooser(suite, docs, pool)
    shots = [choose(number) for number in range(len(docs[:limit]))]
    worked = docs if pool is None else pool
    requests = [
        kind.requests(doc, suite, [worked[shot] for shot in chosen])
        for doc, chosen in zip(docs, shots, strict=False)
    ]
    name = source if split is None else f"{source}/{split}"
    return Job(suite, kind, docs[:limit], requests, shots, len(docs), name)


def _check_file(suite: Suite) -> None:
    from llama_keras.data.files import find_file
    from llama_keras.data.parts import split_source
    from llama_keras.eval.targets.fingerprints import content_sha256

    file = find_file(split_source(suite.data.source)[0], suite.data.split, suffixes=_SUFFIXES)
    found = content_sha256(file)
    if found != suite.data.sha256:
        raise InputError(
            f"{file} is not the file that {suite.name} was made for: its SHA-256 is {found}, not "
            f"{suite.data.sha256}. Fetch it anew, or measure it on purpose with --data {file}."
        )


_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".conll", ".txt")


def check_fits(job: Job, target: Target) -> None:
    """Raises `InputError` where a target cannot answer a suite, or their labels differ."""
    if job.kind.request not in target.requests:
        raise InputError(
            f"{job.suite.name} asks for {job.kind.request!r}, and the {target.kind} target "
            f"{target.location} answers {sorted(target.requests)}; choose a suite or a model that "
            "fits."
        )
    job.kind.check(job.suite, job.docs, target.labels)


def size_of(requests: Sequence[Request]) -> int:
    """Gives the characters of an example's requests, to put those of like length together."""
    return sum(len(text) for r in requests for text in r.values() if isinstance(text, str))


def checked_answer(answer: Answer, kind: str, request: Request, target: Target) -> Answer:
    """Gives an answer that holds what answers of its kind hold, and numbers that are numbers."""
    wanted = ANSWERS[kind]
    missing = [key for key in wanted if key not in answer]
    if missing and not (kind == "classify" and "labels" in answer):
        raise InputError(
            f"{target.location} gave {sorted(answer)} to {kind!r}, without {missing}; it is no "
            "model of that kind."
        )
    if name := _not_a_number(answer):
        raise InputError(
            f"{target.location} gave a {name} that is not a number for {str(request)[:200]}; "
            "its weights or its export are damaged."
        )
    return answer


def _not_a_number(value: Any, name: str = "value") -> str | None:
    """Gives the key of the first NaN in an answer, None where there is none."""
    if isinstance(value, float):
        return name if value != value else None
    items = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        items = ((name, item) for item in value)
    return next((bad for key, item in items if (bad := _not_a_number(item, key))), None)


def first_requests(suite: Suite, count: int) -> list[list[Request]]:
    """Gives what a suite asks for its first examples."""
    return prepare(suite, None, count).requests if count else []
