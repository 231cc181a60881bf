"""The harness: asks a target for every example of a suite, scores, keeps the record."""

import dataclasses
import importlib.metadata
import json
import math
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_keras.atomic import new_directory
from llama_keras.data import ClassificationData, load_classification
from llama_keras.errors import InputError
from llama_keras.eval.metrics import Metric, compute_metrics
from llama_keras.eval.progress import progress_bar
from llama_keras.eval.suite import Suite, load_suite
from llama_keras.eval.targets import Answer, Target, open_target

SEED = 0
_PACKAGES = ("llama-keras", "tensorflow", "keras", "keras-hub", "tensorflow-text", "scikit-learn")


@dataclass(frozen=True)
class Result:
    """What an evaluation found; `results.json` holds these fields."""

    suite: str
    """The suite's name."""
    n: int
    """The number of examples scored."""
    limit: int | None
    """The limit asked for; None means that all examples were taken."""
    metrics: dict[str, Metric]
    """Value and 95 % interval of each metric."""
    labels: list[str]
    """The labels that there are."""
    model: dict[str, str | None]
    """Kind, location and SHA-256 of what was measured."""
    data: dict[str, str]
    """Source and SHA-256 of the examples scored."""
    seconds: float
    """Wall time of the answers, without loading."""
    examples_per_second: float
    """n / seconds."""
    seed: int
    """Of the bootstrap."""
    versions: dict[str, str]
    """Python and the packages that the numbers depend on."""

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return dataclasses.asdict(self)


def evaluate(
    suite: str | Path | Suite,
    *,
    model: str | Path | Target,
    data: str | Path | None = None,
    limit: int | None = None,
    batch_size: int = 32,
    output: str | Path | None = None,
    show_progress: bool = True,
) -> Result:
    """Returns how well a model does on a suite.

    Args:
        suite: A suite, the name of a shipped one, or a YAML file.
        model: A run directory, a `.keras` file, a SavedModel folder, a URL, or a target.
        data: Examples to take in place of the suite's own, as `data.load_classification` takes
            them; the suite's columns, labels and metrics stay.
        limit: Take the first examples only.
        batch_size: Texts asked for at once.
        output: A new folder for `results.json` and `examples.jsonl` (one answer a line); it
            appears when it is complete.
        show_progress: Show a bar with rate and remaining time, if standard error is a terminal.

    Raises:
        InputError: Something of the above is not there or does not fit together: the output
            exists, the labels of data, suite and model differ.
    """
    for name, value in (("limit", limit), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1, got {value}.")
    if output is not None and Path(output).exists():
        raise InputError(f"{output} exists already; name another folder, or remove it.")
    suite = suite if isinstance(suite, Suite) else load_suite(suite)
    examples = _load_examples(suite, data, limit)
    labels = suite.labels or examples.label_names
    _check_labels(examples.labels, labels, f"The data {examples.source}")
    target = open_target(model) if isinstance(model, str | Path) else model
    if target.labels is not None:
        _check_labels(target.labels, labels, f"The model {target.location}")
        _check_labels(labels, target.labels, f"The suite {suite.name}")
    bar = progress_bar("evaluate", total=len(examples), visible=show_progress)
    answers, seconds = _ask(target, examples.texts, labels, batch_size=batch_size, bar=bar)
    result = Result(
        suite=suite.name,
        n=len(examples),
        limit=limit,
        metrics=compute_metrics(
            examples.labels,
            [answer["label"] for answer in answers],
            labels=labels,
            names=suite.metrics,
            seed=SEED,
        ),
        labels=labels,
        model={
            "kind": target.kind,
            "location": target.location,
            "sha256": target.fingerprint(),
        },
        data={"source": examples.source, "sha256": examples.fingerprint()},
        seconds=seconds,
        examples_per_second=len(examples) / seconds,
        seed=SEED,
        versions=_versions(),
    )
    if output is not None:
        _write(Path(output), result, examples, answers)
    return result


def _load_examples(suite: Suite, data: str | Path | None, limit: int | None) -> ClassificationData:
    arguments = suite.data.model_dump()
    if data is not None:
        arguments |= {"source": data, "split": None}
    examples = load_classification(arguments.pop("source"), **arguments)
    return examples if limit is None else examples.head(limit)


def _check_labels(found: Sequence[str], known: Sequence[str], owner: str) -> None:
    unknown = set(found) - set(known)
    if unknown:
        raise InputError(
            f"{owner} has the labels {sorted(set(found))}, but {sorted(unknown)} are not among "
            f"{list(known)}; data, suite and model must name the same labels."
        )


def _ask(
    target: Target,
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    batch_size: int,
    bar: AbstractContextManager[Callable[[int], None]],
) -> tuple[list[Answer], float]:
    # Texts of like length go together, which spares padding whatever the target is.
    order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
    answers: dict[int, Answer] = {}
    start = time.perf_counter()
    with bar as advance:
        for first in range(0, len(order), batch_size):
            batch = order[first : first + batch_size]
            found = target.classify([texts[index] for index in batch])
            answers |= zip(batch, found, strict=True)
            advance(len(batch))
    seconds = time.perf_counter() - start
    for index, answer in answers.items():
        _check_labels([answer["label"]], labels, f"The answer to example {index}")
        if not math.isfinite(answer["score"]):
            raise InputError(
                f"{target.location} gave example {index} the score {answer['score']}; "
                "its weights or its export are damaged."
            )
    return [answers[index] for index in range(len(texts))], seconds


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _write(
    output: Path, result: Result, examples: ClassificationData, answers: Sequence[Answer]
) -> None:
    """Writes both files into a new folder."""
    with new_directory(output) as folder:
        text = json.dumps(result.to_dict(), indent=2, ensure_ascii=False)
        (folder / "results.json").write_text(text + "\n", encoding="utf-8")
        with (folder / "examples.jsonl").open("w", encoding="utf-8") as stream:
            rows = zip(examples.texts, examples.labels, answers, strict=True)
            for index, (text, label, answer) in enumerate(rows):
                row = {"index": index, "text": text, "expected": label, **answer}
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
