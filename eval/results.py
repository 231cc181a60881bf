"""What an evaluation found, as a record and as JSON."""

import dataclasses
import importlib.metadata
import platform
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llama_keras.eval.metrics import Metric

_PACKAGES = (
    "llama-keras",
    "tensorflow",
    "keras",
    "keras-hub",
    "tensorflow-text",
    "scikit-learn",
    "sacrebleu",
)


@dataclass(frozen=True)
class Result:
    """What the evaluation of one suite found; `results_SUITE.json` holds these fields."""

    suite: str
    """The suite's name."""
    version: int
    """The suite's version."""
    task: str
    """The suite's task."""
    n: int
    """The number of examples scored."""
    original_n: int
    """The number of examples that the data have."""
    limit: int | None
    """The limit asked for; None means that all examples were taken."""
    shots: int
    """Worked examples before each prompt."""
    metrics: dict[str, Metric]
    """Value and 95 % interval of each metric."""
    higher_is_better: dict[str, bool]
    """Of each metric."""
    labels: list[str]
    """The labels that there are, of suites that have labels."""
    model: dict[str, Any]
    """Of what was measured: kind, location, SHA-256, precision, settings; `requests.described`."""
    data: dict[str, str]
    """Source and SHA-256 of the examples scored."""
    prompts_sha256: str
    """Of all requests in order: equal prompts, equal fingerprint."""
    first_tokens: list[int] | None
    """The first ids that the model read for the first request; None where it does not tell."""
    truncated: int
    """Requests that were longer than the model's context and lost their beginning."""
    seconds: float
    """Wall time of the answers given in this process, without loading."""
    asked: int
    """Requests answered in this process."""
    cached: int
    """Requests answered from the cache."""
    resumed: int
    """Examples that an earlier, interrupted run had answered."""
    requests_per_second: float
    """asked / seconds."""
    peak_memory_bytes: int
    """Of this process up to now."""
    drift: dict[str, Any] | None
    """What changes when examples are asked one at a time: how many were asked so, the largest
    difference of each number, and the numbers of the examples whose answers are others; None where
    that was not looked at."""
    seed: int
    """Of the bootstrap."""
    warnings: list[str] = field(default_factory=list)
    """What a reader should know before trusting the numbers."""
    versions: dict[str, str] = field(default_factory=dict)
    """Python and the packages that the numbers depend on."""

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Result":
        """Returns the record of what `to_dict` gave."""
        metrics = {name: Metric(**metric) for name, metric in content["metrics"].items()}
        return cls(**{**content, "metrics": metrics})


def merged_results(results: Sequence[Result], *, configs: dict[str, Any]) -> dict[str, Any]:
    """Gives all suites' results under the field names of lm-evaluation-harness.

    `results`, `configs`, `versions`, `n-shot`, `n-samples`, `higher_is_better` are as in its
    `results_*.json` (metrics are called NAME,none; there is an interval instead of a standard
    error); what it has no word for is under `details`.

    Args:
        results: of each suite.
        configs: of each suite, what its file says.
    """
    return {
        "results": {r.suite: {"alias": r.suite, **_named(r)} for r in results},
        "configs": {r.suite: configs[r.suite] for r in results},
        "versions": {r.suite: r.version for r in results},
        "n-shot": {r.suite: r.shots for r in results},
        "n-samples": {r.suite: {"original": r.original_n, "effective": r.n} for r in results},
        "higher_is_better": {r.suite: r.higher_is_better for r in results},
        "model_source": results[0].model["kind"],
        "model_name": results[0].model["location"],
        "total_evaluation_time_seconds": sum(r.seconds for r in results),
        "details": {r.suite: r.to_dict() for r in results},
    }


def _named(result: Result) -> dict[str, Any]:
    named: dict[str, Any] = {f"{name},none": m.value for name, m in result.metrics.items()}
    for name, metric in result.metrics.items():
        named[f"{name}_ci95,none"] = [metric.low, metric.high]
    return named


def versions() -> dict[str, str]:
    """Gives the versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def peak_memory() -> int:
    """Gives the most bytes that this process has held in memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
