"""Metrics computed anew from the answers that a finished evaluation kept; no model is asked."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from llama_keras.atomic import write_text
from llama_keras.errors import InputError
from llama_keras.eval.folder import read_evaluation
from llama_keras.eval.harness import ELSEWHERE, metrics_of, rows_of
from llama_keras.eval.kinds import check_metrics, get_kind
from llama_keras.eval.kinds.kind import Row
from llama_keras.eval.record import PLAN_FILE, Record, Sample, digest, read_json
from llama_keras.eval.results import Result, merged_results, versions
from llama_keras.eval.suite import Suite, load_suite

# What of a suite decided what was asked: an answer is none to another question.
_ASKED = ("task", "data", "prompt", "shots")
# What of a sample is the example and the answers; the rest is what was made of them.
_KEPT = ("doc_id", "doc", "arguments", "resps", "doc_hash", "prompt_hash", "shots")
# After which key a sample holds which of the row's fields, and its name there.
_MADE = {"doc": ("target", "expected"), "resps": ("filtered_resps", "predicted")}


def rescore(folder: str | Path, *, suites: Sequence[str | Path | Suite] = ()) -> list[Result]:
    """Returns what the metrics, as they are defined now, make of an evaluation's answers.

    The folder's samples and results are replaced, each file at once.

    Args:
        folder: A finished evaluation.
        suites: Suites, names or YAML files that take the place of those kept in the folder; their
            labels, rule, metrics and version may differ, what they ask may not.

    Raises:
        InputError: There is no finished evaluation, a suite is not in it or asks something else,
            or a metric that the suite names does not apply.
    """
    evaluation = read_evaluation(folder)
    used = dict(evaluation.suites)
    for suite in suites:
        new = suite if isinstance(suite, Suite) else load_suite(suite)
        if new.name not in used:
            raise InputError(f"{evaluation.folder} holds no {new.name}; it has {list(used)}.")
        used[new.name] = _replaced(evaluation.suites[new.name], new)
    results, samples = [], {}
    for name, suite in used.items():
        check_metrics(suite)
        kept = evaluation.samples(name)
        rows = rows_of(suite, kept)
        results.append(_rescored(evaluation.results[name], suite, rows))
        samples[name] = [_sample(old, row) for old, row in zip(kept, rows, strict=True)]
    # All is computed before anything is written, and results.json comes last.
    plan_file = evaluation.folder / PLAN_FILE
    plan = read_json(plan_file)
    record = Record(evaluation.folder, plan)
    for result in results:
        record.finish(result, samples[result.suite])
    plan["suites"] = {name: digest(suite.model_dump()) for name, suite in used.items()}
    write_text(plan_file, json.dumps(plan, indent=2, ensure_ascii=False) + "\n")
    configs = {name: suite.model_dump() for name, suite in used.items()}
    record.close(merged_results(results, configs=configs))
    return results


def _replaced(kept: Suite, new: Suite) -> Suite:
    """Gives the new suite as it would have been asked; refuses one that asks something else."""
    # A run may have asked with another number of shots, and filled in the labels of the data.
    shots = new.shots.model_copy(update={"count": kept.shots.count})
    new = new.model_copy(update={"shots": shots, "labels": new.labels or kept.labels})
    if differing := [key for key in _ASKED if getattr(kept, key) != getattr(new, key)]:
        raise InputError(
            f"The suite {new.name} now has another {' and another '.join(differing)} than what was "
            "asked, so its answers cannot be rescored; run the evaluation again."
        )
    return new


def _rescored(result: Result, suite: Suite, rows: Sequence[Row]) -> Result:
    kind = get_kind(suite.task)
    return dataclasses.replace(
        result,
        version=suite.version,
        metrics=metrics_of(suite, rows, seed=result.seed),
        higher_is_better={name: metric.higher_is_better for name, metric in kind.metrics.items()},
        labels=suite.labels or result.labels,
        versions={**versions(), **kind.signatures()},
    )


def _sample(old: Sample, row: Row) -> Sample:
    """Gives a sample with what the row makes of its answers, ordered as the harness has it."""
    made = {name: value for name, value in row.items() if name not in ELSEWHERE}
    new: Sample = {}
    for key in _KEPT:
        if key == "shots":
            new |= made
        if key in old:
            new[key] = old[key]
        if key in _MADE:
            new[_MADE[key][0]] = row.get(_MADE[key][1])
    return new
