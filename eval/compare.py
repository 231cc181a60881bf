"""Two evaluations of the same examples, side by side: what differs, how surely, and where."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llama_keras.errors import InputError
from llama_keras.eval.folder import Evaluation, chosen_suites, read_evaluation
from llama_keras.eval.kinds import get_kind
from llama_keras.eval.kinds.kind import Row
from llama_keras.eval.paired import compare_drawn, compare_shares, compare_sums
from llama_keras.eval.record import Sample
from llama_keras.eval.sums import sums_of

# Task -> what of a row says whether the answer is right. The others have no right and wrong.
RIGHT = {
    "text_classification": "correct",
    "token_classification": "correct",
    "question_answering": "correct",
    "multiple_choice": "acc",
    "cloze": "acc",
    "generation": "exact_match",
}
_EQUAL = 1e-6  # a recorded value and the samples' own differ by rounding only


@dataclass(frozen=True)
class Change:
    """One metric of both evaluations."""

    a: float
    """Its value in A."""
    b: float
    """Its value in B."""
    difference: float
    """B - A."""
    low: float
    """Lower end of the 95 % interval of the difference."""
    high: float
    """Its upper end."""
    p_value: float
    """Two-sided, of a paired test."""
    test: str
    """`mcnemar` (exact) where examples are right or wrong, else `bootstrap` (paired)."""
    only_a: int | None
    """With `mcnemar`, examples that A alone has right."""
    only_b: int | None
    """With `mcnemar`, examples that B alone has right."""
    higher_is_better: bool
    """Whether more is better."""


@dataclass(frozen=True)
class Flip:
    """An example that one has right and the other wrong."""

    doc_id: int
    """Its number in the suite."""
    doc: dict[str, Any]
    """The example."""
    expected: Any
    """The right answer."""
    a: Any
    """What A says; None where the suite keeps no answer but its score."""
    b: Any
    """What B says."""
    right: str
    """Who has it right: `a` or `b`."""


@dataclass(frozen=True)
class SuiteComparison:
    """One suite in both."""

    suite: str
    """Its name."""
    task: str
    """Its task."""
    n: int
    """The number of examples."""
    changes: dict[str, Change]
    """By metric."""
    flips: list[Flip]
    """In the order of the suite."""
    notes: list[str]
    """What else differs between the two."""


@dataclass(frozen=True)
class Comparison:
    """What `compare` found."""

    a: dict[str, Any]
    """Folder and model of A."""
    b: dict[str, Any]
    """Folder and model of B."""
    suites: dict[str, SuiteComparison]
    """The suites that are in both, by name."""
    only_in_one: list[str]
    """Suites that could not be compared because one of the two lacks them."""

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return dataclasses.asdict(self)


def compare(a: str | Path, b: str | Path, *, suite: str | None = None) -> Comparison:
    """Returns how two evaluations of the same examples differ.

    Args:
        a: Folder of one (`evaluate run --output`).
        b: Folder of the other; differences are B - A.
        suite: Compare this one only; by default all that are in both.

    Raises:
        InputError: A folder holds no finished evaluation, no suite is in both, or the examples of
            one differ.

    Example:
    ```python
    from llama_keras.eval.compare import compare

    found = compare("runs/before", "runs/after")  # doctest: skip
    found.suites["sst2"].changes["accuracy"].p_value  # doctest: skip
    ```
    """
    left, right = read_evaluation(a), read_evaluation(b)
    for evaluation in (left, right) if suite is not None else ():
        chosen_suites(evaluation, suite)
    both = [name for name in left.results if name in right.results]
    if not both:
        raise InputError(
            f"{left.folder} has the suites {list(left.results)} and {right.folder} "
            f"{list(right.results)}: none is in both."
        )
    names = both if suite is None else [suite]
    others = [*left.results, *(name for name in right.results if name not in left.results)]
    return Comparison(
        *({"folder": str(e.folder), "model": e.results[names[0]].model} for e in (left, right)),
        suites={name: _compare_suite(name, left, right) for name in names},
        only_in_one=[name for name in others if name not in both] if suite is None else [],
    )


def _compare_suite(name: str, left: Evaluation, right: Evaluation) -> SuiteComparison:
    pair = (left, right)
    tasks = [evaluation.results[name].task for evaluation in pair]
    if tasks[0] != tasks[1]:
        raise InputError(f"{name} is a {tasks[0]} suite in A and a {tasks[1]} suite in B.")
    samples = [evaluation.samples(name) for evaluation in pair]
    _check_same_examples(name, samples)
    rows = [evaluation.rows(name, own) for evaluation, own in zip(pair, samples, strict=True)]
    metrics = [m for m in left.results[name].metrics if m in right.results[name].metrics]
    return SuiteComparison(
        name,
        tasks[0],
        len(samples[0]),
        {metric: _change(metric, name, pair, rows) for metric in metrics},
        _flips(tasks[0], samples[0], rows),
        _notes(name, pair),
    )


def _check_same_examples(name: str, samples: Sequence[Sequence[Sample]]) -> None:
    a, b = ([sample["doc_hash"] for sample in own] for own in samples)
    if a == b:
        return
    if len(a) != len(b):
        how = f"A has {len(a)} examples and B {len(b)}"
    elif sorted(a) == sorted(b):
        how = "they are in another order"
    else:
        first = next(n for n, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
        how = f"{len(set(a) & set(b))} of {len(a)} are in both, and number {first} is the first"
        how += " that is not the same"
    raise InputError(
        f"The examples of {name} differ: {how}. A paired comparison needs the same ones; evaluate "
        "both on the same data with the same limit."
    )


def _change(
    metric: str, name: str, pair: Sequence[Evaluation], rows: Sequence[Sequence[Row]]
) -> Change:
    a, b = (evaluation.results[name].metrics[metric].value for evaluation in pair)
    suites = [evaluation.suites[name] for evaluation in pair]
    kind, seed = get_kind(suites[0].task).metrics[metric], pair[0].results[name].seed
    left, right = (sums_of(metric, own, suite) for own, suite in zip(rows, suites, strict=True))
    if left is None or right is None:

        def computed(which: int, chosen: np.ndarray) -> float:
            return kind.compute([rows[which][n] for n in chosen], suites[which], seed).value

        found = compare_drawn(computed, len(rows[0]), seed=seed)
        values = [computed(which, np.arange(len(rows[which]))) for which in (0, 1)]
    else:
        shares = left.is_share and right.is_share
        found = compare_shares(left, right) if shares else compare_sums(left, right, seed=seed)
        values = [left.value, right.value]
    for evaluation, recorded, value in zip(pair, (a, b), values, strict=True):
        if abs(recorded - value) > _EQUAL * max(1.0, abs(value)):
            raise InputError(
                f"{evaluation.folder} records {metric} {recorded:g} for {name}, and its samples "
                f"give {value:g}; run `llama-keras evaluate rescore {evaluation.folder}` first."
            )
    return Change(a, b, **vars(found), higher_is_better=kind.higher_is_better)


def _flips(task: str, samples: Sequence[Sample], rows: Sequence[Sequence[Row]]) -> list[Flip]:
    key = RIGHT.get(task)
    if key is None:
        return []
    return [
        Flip(
            sample["doc_id"],
            sample["doc"],
            a.get("expected"),
            a.get("predicted"),
            b.get("predicted"),
            "a" if a[key] else "b",
        )
        for sample, a, b in zip(samples, *rows, strict=True)
        if bool(a[key]) != bool(b[key])
    ]


def _notes(name: str, pair: Sequence[Evaluation]) -> list[str]:
    notes = []
    a, b = (evaluation.suites[name].model_dump() for evaluation in pair)
    differing = [key for key in a if a[key] != b[key] and key != "description"]
    if differing:
        notes.append(f"The suites differ in {', '.join(differing)}.")
    left, right = (evaluation.results[name] for evaluation in pair)
    if left.prompts_sha256 != right.prompts_sha256:
        notes.append("The prompts differ.")
    same = left.model["sha256"] is not None and left.model["sha256"] == right.model["sha256"]
    if same:
        notes.append("Both measured the same weights.")
    precisions = [side.model.get("precision") for side in (left, right)]
    if None not in precisions and precisions[0] != precisions[1]:
        notes.append(f"A computed in {precisions[0]}, B in {precisions[1]}.")
    changed = [
        f"{package} {left.versions.get(package)} and {right.versions.get(package)}"
        for package in {**left.versions, **right.versions}
        if left.versions.get(package) != right.versions.get(package)
    ]
    if changed:
        notes.append(f"The versions differ: {', '.join(changed)}.")
    return notes
