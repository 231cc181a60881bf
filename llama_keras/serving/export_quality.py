"""How good, how large and how fast an export is: the harness asks it, its manifest tells it."""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_keras.atomic import write_text
from llama_keras.errors import InputError
from llama_keras.eval.compare import Change, compare
from llama_keras.eval.folder import read_evaluation
from llama_keras.eval.harness import evaluate_suites
from llama_keras.eval.jobs import check_fits, prepare
from llama_keras.eval.requests import Target
from llama_keras.eval.results import Result
from llama_keras.eval.suite import Suite, SuiteData, load_suite
from llama_keras.eval.targets.saved_model import SavedModelTarget
from llama_keras.eval.targets.task import KerasTarget
from llama_keras.serving.manifest import MANIFEST_FILE, read_manifest
from llama_keras.serving.versions import find_model

# Requests that are timed, each by itself and each asked once before, and when enough time has gone.
_TIMED, _TIMED_SECONDS = 32, 30.0
# Task class name -> task of the suite that a file of examples makes.
_FILE_TASKS = {
    "QuestionAnswerer": "question_answering",
    "TextClassifier": "text_classification",
    "TokenClassifier": "token_classification",
}


def measure_export(
    directory: str | Path,
    suites: Sequence[str | Path | Suite],
    *,
    model=None,
    head: str | None = None,
    limit: int | None = None,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Measures an export, and writes what was found into its `signature.json`.

    There it stands under `evaluation`, `measured`; an earlier one is replaced, at once and whole.

    Args:
        directory: NAME/ (its newest version) or NAME/VERSION/.
        suites: what is asked, see `suites_for`.
        model: the task that was exported, which is asked the same to tell what the export loses.
        head: of an export with several, which one is asked; what was found is told of that.
        limit: take the first examples of each suite only.
        show_progress: show a bar, if standard error is a terminal.

    Returns:
        `bytes` of the folder without the manifest; `cores` of the machine; and of each suite in
        `suites`: n, metrics with their 95 % intervals, `latency` (`p50_ms` of one request in this
        process, warm, of so many `requests`). With a model also its `loss` of each metric, with its
        own paired interval, above 0 where the export is worse, and `other_answers`, the number of
        examples that the two answer differently (None where a suite's answers are numbers).

    Raises:
        InputError: there is no export, or no such head, or it does not fit a suite.
    """
    folder = find_model(directory).path
    loaded = suites_for(suites, model=model, limit=limit)
    target = SavedModelTarget(folder, signature=head)
    if head is not None and head not in read_manifest(folder).heads:
        raise InputError(f"{MANIFEST_FILE} of {folder} tells of no head {head!r}; export it again.")
    with tempfile.TemporaryDirectory(prefix="llama_keras_") as temporary:
        asked: dict[str, Any] = {"limit": limit, "drift": 0, "show_progress": show_progress}
        ours = Path(temporary) / "export"
        results = evaluate_suites(loaded, model=target, output=ours, **asked)
        found = {result.suite: _told(result) for result in results}
        for suite in loaded:
            found[suite.name]["latency"] = _latency(suite, target, limit)
        if model is not None:
            theirs = Path(temporary) / "model"
            evaluate_suites(loaded, model=KerasTarget(model), output=theirs, **asked)
            for name, lost in _losses(theirs, ours).items():
                found[name] |= lost
    measured = {"bytes": _bytes(folder), "cores": os.cpu_count(), "suites": found}
    _write(folder, measured, head)
    return measured


def suites_for(
    suites: Sequence[str | Path | Suite], *, model=None, limit: int | None = None
) -> list[Suite]:
    """Gives the suites that an export is measured on.

    Args:
        suites: suites, names of shipped ones, their YAML files, or, with a classifier, a tagger or
            an answerer, files of examples that `llama-keras train` takes, with its columns.
        model: the task that is or will be exported: it is looked whether it can answer them.
        limit: take the first examples only.

    Raises:
        InputError: there is no such suite, or the model cannot answer it.
    """
    loaded = [suite if isinstance(suite, Suite) else _suite(suite, model) for suite in suites]
    names = [suite.name for suite in loaded]
    if len(set(names)) < len(names) or not names:
        raise InputError(f"An export is measured on one or more suites, each once; got {names}.")
    if model is not None:
        target = KerasTarget(model)
        for suite in loaded:
            check_fits(prepare(suite, None, limit), target)
    return loaded


def _suite(name: str | Path, model) -> Suite:
    file = Path(name).expanduser()
    if file.suffix in ("", ".yaml", ".yml") or not file.is_file():
        return load_suite(name)
    task = _FILE_TASKS.get(type(model).__name__)
    if task is None or getattr(model, "pairs", False):
        takes = f"of pairs or by a {type(model).__name__}" if model is not None else "without model"
        raise InputError(f"{file} is no suite, and no examples {takes} are read; write a suite.")
    several = bool(getattr(model, "multi_label", False))
    labels = list(map(str, model.labels)) if task != "question_answering" else None
    data = SuiteData(source=str(file), multi_label=several)
    return Suite.model_validate(
        {"name": file.stem, "task": task, "data": data.model_dump(), "labels": labels}
    )


def _told(result: Result) -> dict[str, Any]:
    told = result.to_dict()
    names = ("task", "version", "n", "original_n", "metrics", "higher_is_better")
    shared = {name: told[name] for name in names}
    known = shared["metrics"]
    shared["higher_is_better"] = {name: shared["higher_is_better"][name] for name in known}
    return {**shared, "data_sha256": told["data"]["sha256"], "seed": told["seed"]}


def _latency(suite: Suite, target: Target, limit: int | None) -> dict[str, Any]:
    """Gives the median time of one request, asked by itself, that was asked before."""
    job = prepare(suite, None, min(limit or _TIMED, _TIMED))
    requests = [request for asked in job.requests for request in asked][:_TIMED]
    times: list[float] = []
    end = time.perf_counter() + _TIMED_SECONDS
    for request in requests:
        target.ask(job.kind.request, [request], batch_size=1)
        start = time.perf_counter()
        target.ask(job.kind.request, [request], batch_size=1)
        times.append(time.perf_counter() - start)
        if time.perf_counter() > end:
            break
    return {"p50_ms": round(1000 * statistics.median(times), 3), "requests": len(times)}


def _losses(model: Path, export: Path) -> dict[str, dict[str, Any]]:
    compared = compare(model, export)
    answers = [read_evaluation(folder) for folder in (model, export)]
    found = {}
    for name, suite in compared.suites.items():
        pairs = zip(*(evaluation.samples(name) for evaluation in answers), strict=True)
        said = [(a["filtered_resps"], b["filtered_resps"]) for a, b in pairs]
        known = all(None not in pair for pair in said)
        found[name] = {
            "loss": {metric: _loss(change) for metric, change in suite.changes.items()},
            "other_answers": sum(a != b for a, b in said) if known else None,
        }
    return found


def _loss(change: Change) -> dict[str, float]:
    if change.higher_is_better:
        value, low, high = -change.difference, -change.high, -change.low
    else:
        value, low, high = change.difference, change.low, change.high
    # A zero has no sign.
    return {"value": value + 0.0, "low": low + 0.0, "high": high + 0.0, "model": change.a}


def _bytes(folder: Path) -> int:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files if file.name != MANIFEST_FILE)


def _write(folder: Path, measured: dict[str, Any], head: str | None) -> None:
    file = folder / MANIFEST_FILE
    manifest = read_manifest(folder)
    content = dict(manifest.content)
    about = content
    if head is not None:
        about = dict(manifest.heads[head])
        content["heads"] = {**manifest.heads, head: about}
    about["evaluation"] = {**(about.get("evaluation") or {}), "measured": measured}
    write_text(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
