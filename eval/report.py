"""What a report shows of a finished evaluation, worked out from its folder; no model is asked."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from markupsafe import Markup

from llama_keras.atomic import write_text
from llama_keras.errors import InputError
from llama_keras.eval.folder import Evaluation, read_evaluation
from llama_keras.eval.kinds.kind import Row, bootstrap_sums
from llama_keras.eval.metrics import Metric, wilson_interval
from llama_keras.eval.plots import Point, interval_bar, points_plot, reliability_plot, scale_of
from llama_keras.eval.record import Sample
from llama_keras.eval.report_examples import Examples, examples_of
from llama_keras.eval.results import Result
from llama_keras.eval.suite import SUITES, Suite, load_suite, suite_names
from llama_keras.eval.sums import sums_of

REPORT_FILE = "report.html"
_LENGTH_BINS, _LEAST_IN_BIN = 8, 10
_MOST_LABELS = 30  # of a confusion matrix that can be read
_PAIRS = 15
# Task -> the metric whose score by length is shown, where it was computed.
_MAIN = {"token_classification": "f1", "question_answering": "f1", "generation": "chrf"}


@dataclass(frozen=True)
class Plot:
    """A picture and its numbers."""

    title: str
    note: str
    picture: Markup
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]


@dataclass(frozen=True)
class Confusion:
    """How often which label was given; `counts[i][j]` is of expected i and found j."""

    labels: list[str]
    counts: list[list[int]]
    pairs: list[tuple[str, str, int]]
    """The most frequent confusions: expected, found, how often."""


@dataclass(frozen=True)
class SuiteReport:
    """What the page shows of one suite."""

    result: Result
    metrics: list[tuple[str, Metric, Markup, str]]
    """Name, value, its bar and which way is better."""
    plots: list[Plot]
    confusion: Confusion | None
    by_type: tuple[str, dict[str, dict[str, float]]] | None
    """What the types are, and the scores of each."""
    examples: Examples
    config: str
    """The suite as YAML."""
    command: str
    shipped: bool
    """Whether the command's suite comes with the package."""


def write_report(folder: str | Path, file: str | Path | None = None) -> Path:
    """Writes one HTML page that needs nothing else, and returns where it is.

    Args:
        folder: A finished evaluation (`evaluate run --output`).
        file: Where to; by default `report.html` in the folder.

    Raises:
        InputError: There is no finished evaluation, or the file cannot be written.

    Example:
    ```python
    from llama_keras.eval.report import write_report

    write_report("runs/sst2/evaluation")  # doctest: skip
    ```
    """
    from llama_keras.eval.report_page import draw_report

    evaluation = read_evaluation(folder)
    path = evaluation.folder / REPORT_FILE if file is None else Path(file).expanduser()
    page = draw_report([suite_report(evaluation, name) for name in evaluation.results])
    # Half of a surrogate pair, which JSON can hold, is no text that a file can hold.
    page = page.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    try:
        write_text(path, page)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}); give a file in a folder that exists."
        ) from None
    return path


def suite_report(evaluation: Evaluation, name: str) -> SuiteReport:
    """Gives what the page shows of one suite."""
    result, suite = evaluation.results[name], evaluation.suites[name]
    samples = evaluation.samples(name)
    rows = evaluation.rows(name, samples)
    confusion = _confusion(suite, rows)
    plots = [_calibration(suite, rows), _by_length(result, suite, samples, rows)]
    return SuiteReport(
        result,
        [_metric(result, metric) for metric in result.metrics],
        [plot for plot in plots if plot is not None],
        confusion,
        _by_label(confusion) if confusion else _by_type(suite, rows),
        examples_of(suite, samples, rows),
        yaml.safe_dump(
            suite.model_dump(exclude_defaults=True), sort_keys=False, allow_unicode=True
        ),
        command_of(result, suite),
        is_shipped(suite),
    )


def command_of(result: Result, suite: Suite) -> str:
    """Gives the command that measures the same again; a suite that is not shipped is SUITE.yaml."""
    named = suite.name if is_shipped(suite) else f"{suite.name}.yaml"
    parts = ["llama-keras", "evaluate", "run", named, "--model", str(result.model["location"])]
    own = suite.data.source
    if result.data["source"] not in (own, f"{own}/{suite.data.split}"):
        parts += ["--data", result.data["source"]]
    for option, value in result.model.get("settings", {}).items():
        parts += [f"--{option}", str(value)]
    for option, value in (("limit", result.limit), ("shots", result.shots), ("seed", result.seed)):
        if value:
            parts += [f"--{option}", str(value)]
    return shlex.join(parts)


def is_shipped(suite: Suite) -> bool:
    """Whether the suite of that name that comes with the package asks the same."""
    if not (SUITES / f"{suite.name}.yaml").is_file() or suite.name not in suite_names():
        return False
    shipped = load_suite(suite.name)
    filled = {"labels": shipped.labels or suite.labels, "shots": suite.shots}
    return shipped.model_copy(update=filled) == suite


def _metric(result: Result, name: str) -> tuple[str, Metric, Markup, str]:
    metric, better = result.metrics[name], result.higher_is_better.get(name, True)
    scale = scale_of(name, [metric.high, metric.value])
    title = f"{name} {metric.value:.4g}, 95 % interval {metric.low:.4g} to {metric.high:.4g}"
    return name, metric, interval_bar(metric, scale=scale, title=title), "↑" if better else "↓"


def _confusion(suite: Suite, rows: Sequence[Row]) -> Confusion | None:
    if suite.task != "text_classification" or suite.data.multi_label:
        return None
    from llama_keras.eval.kinds.text_classification import labels_of

    labels = labels_of(suite, rows)
    number = {label: index for index, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), int)
    for row in rows:
        counts[number[row["expected"]], number[row["predicted"]]] += 1
    pairs = [(labels[i], labels[j], int(counts[i, j])) for i, j in np.argwhere(counts) if i != j]
    pairs.sort(key=lambda pair: -pair[2])
    shown = counts.tolist() if len(labels) <= _MOST_LABELS else []
    return Confusion(labels, shown, pairs[:_PAIRS])


def _by_label(confusion: Confusion) -> tuple[str, dict[str, dict[str, float]]] | None:
    from llama_keras.eval.entity_metrics import NAMES, scores_of_counts

    if not confusion.counts:
        return None
    counts = np.array(confusion.counts)
    sums = np.stack([np.diag(counts), counts.sum(axis=0), counts.sum(axis=1)], axis=-1)
    scores = scores_of_counts(sums)
    return "label", {
        label: {
            **dict(zip(NAMES, scores[:, at].tolist(), strict=True)),
            "support": int(sums[at, 2]),
        }
        for at, label in enumerate(confusion.labels)
    }


def _by_type(suite: Suite, rows: Sequence[Row]) -> tuple[str, dict[str, dict[str, float]]] | None:
    if suite.task != "token_classification":
        return None
    from llama_keras.eval.entity_metrics import metrics_by_type

    return "type", metrics_by_type(
        *([row[key] for row in rows] for key in ("expected", "predicted"))
    )


def _calibration(suite: Suite, rows: Sequence[Row]) -> Plot | None:
    if suite.task != "text_classification" or suite.data.multi_label:
        return None
    from llama_keras.eval.kinds.text_classification import calibration

    bins = calibration(rows)
    title = "Calibration"
    return Plot(
        title,
        "Share of right answers by the confidence of the answer. On the dashed line they are the "
        "same; below it the model is too sure. The larger the point, the more examples.",
        reliability_plot(bins, title=title),
        ("confidence", "right", "n"),
        [(f"{b['confidence']:.3f}", f"{b['accuracy']:.3f}", f"{b['n']:,}") for b in bins],
    )


def _by_length(
    result: Result, suite: Suite, samples: Sequence[Sample], rows: Sequence[Row]
) -> Plot | None:
    name = _MAIN.get(suite.task)
    name = name if name in result.metrics else next(iter(result.metrics), None)
    lengths = np.array([_length(sample["arguments"]) for sample in samples])
    bins = _bins(lengths)
    if name is None or len(bins) < 2:
        return None
    sums = sums_of(name, rows, suite)
    # A metric over queries has no examples to part by length.
    if sums is None or len(sums.values) != len(rows) or suite.task == "retrieval":
        return None
    points = []
    for low, high in bins:
        values = sums.values[(lengths >= low) & (lengths <= high)]
        if sums.is_mean and not values[:, 1].any():
            continue
        if sums.is_share:
            right, n = int(values[:, 0].sum()), int(values[:, 1].sum())
            metric = Metric(right / n, *wilson_interval(right, n), "wilson")
        else:
            metric = bootstrap_sums(values, sums.finish, result.seed)
        points.append(Point(f"{low}–{high}" if low < high else f"{low}", metric, len(values)))
    scale = scale_of(name, [point.metric.high for point in points])
    title = f"{name} by length"
    return Plot(
        title,
        "In parts of about equal numbers of examples, with 95 % intervals.",
        points_plot(points, scale=scale, title=title, axis="characters that the model reads"),
        ("characters", name, "95 % interval", "n"),
        [
            (
                p.label,
                f"{p.metric.value:.4g}",
                f"{p.metric.low:.4g} – {p.metric.high:.4g}",
                f"{p.n:,}",
            )
            for p in points
        ],
    )


def _length(requests: Sequence[Mapping[str, Any]]) -> int:
    """Gives the characters of the longest of an example's requests."""

    def size(value: Any) -> int:
        texts = value if isinstance(value, list) else [value]
        return sum(len(text) for text in texts if isinstance(text, str))

    return max(sum(size(v) for key, v in r.items() if key != "until") for r in requests)


def _bins(lengths: np.ndarray) -> list[tuple[int, int]]:
    """Gives the shortest and longest of parts of about equal numbers; equal ones stay together."""
    least = max(_LEAST_IN_BIN, len(lengths) / _LENGTH_BINS)
    values, counts = np.unique(lengths, return_counts=True)
    parts, low, size = [], 0, 0
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        low = low if size else value
        size += count
        if size >= least:
            parts.append((low, value))
            size = 0
    if size and parts:
        parts[-1] = (parts[-1][0], int(values[-1]))
    return parts
