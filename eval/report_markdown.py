"""Finished evaluations as a Markdown table, as a README has them."""

from collections.abc import Sequence
from pathlib import Path

from llama_keras.errors import InputError
from llama_keras.eval.folder import Evaluation, read_evaluation
from llama_keras.eval.metrics import Metric
from llama_keras.eval.results import Result


def markdown_report(folders: Sequence[str | Path]) -> str:
    """Returns a table with a row for each metric of each suite, and a column for each evaluation.

    Several evaluations should be of the same examples; one that lacks a suite, or has other
    examples of it than the first that has it, is told below the table.

    Args:
        folders: Of finished evaluations (`evaluate run --output`).

    Raises:
        InputError: There is no folder, or one holds no finished evaluation.

    Example:
    ```python
    from llama_keras.eval.report_markdown import markdown_report

    print(markdown_report(["runs/sst2/evaluation"]))  # doctest: skip
    ```
    """
    if not folders:
        raise InputError("Name at least one folder of a finished evaluation.")
    evaluations = [read_evaluation(folder) for folder in folders]
    names = [_cell(name) for name in _names(evaluations)]
    rows = [["suite", "n", "metric", *names], ["---"] * (3 + len(names))]
    suites = dict.fromkeys(name for one in evaluations for name in one.results)
    for suite in suites:
        rows += _rows(suite, [one.results.get(suite) for one in evaluations])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    notes = [_described(name, one) for name, one in zip(names, evaluations, strict=True)]
    notes += [note for suite in suites for note in _other_examples(suite, names, evaluations)]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)]) + "\n"


def _names(evaluations: Sequence[Evaluation]) -> list[str]:
    """Gives what tells evaluations apart: their models, or where those are alike, their folders."""
    models = [_first(one).model for one in evaluations]
    choices = (
        [Path(str(model["location"])).name or str(model["location"]) for model in models],
        [str(model["kind"]) for model in models],
        [f"{model['kind']} {model['location']}" for model in models],
    )
    folders = [str(one.folder) for one in evaluations]
    return next((names for names in choices if len(set(names)) == len(names)), folders)


def _first(evaluation: Evaluation) -> Result:
    return next(iter(evaluation.results.values()))


def _rows(suite: str, results: Sequence[Result | None]) -> list[list[str]]:
    known = [result for result in results if result is not None]
    metrics = dict.fromkeys(name for result in known for name in result.metrics)
    shots = f" ({known[0].shots} shots)" if known[0].shots else ""
    rows = []
    for at, name in enumerate(metrics):
        better = "↑" if known[0].higher_is_better.get(name, True) else "↓"
        values = [_value(result.metrics.get(name)) if result else "–" for result in results]
        # Named once; the rows below belong to it.
        head = [f"`{suite}`{shots}", f"{known[0].n:,}"] if not at else ["", ""]
        rows.append([*head, f"{name} {better}", *values])
    return rows


def _value(metric: Metric | None) -> str:
    if metric is None:
        return "–"
    value, low, high = (_number(number) for number in (metric.value, metric.low, metric.high))
    return f"{value} ({low} – {high})"


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.2f}"


def _described(name: str, evaluation: Evaluation) -> str:
    result = _first(evaluation)
    model, version = result.model, result.versions.get("llama-keras", "of an unknown version")
    precision = f", computed in {model['precision']}" if model.get("precision") else ""
    # What the column is called is not said again.
    parts = [model["kind"], f"`{model['location']}`"]
    told = " ".join(part for part in parts if part.strip("`") != name)
    return f"{name}: {told}{precision}; llama-keras {version}; 95 % intervals"


def _other_examples(
    suite: str, names: Sequence[str], evaluations: Sequence[Evaluation]
) -> list[str]:
    first, *others = [
        (name, one.results[suite])
        for name, one in zip(names, evaluations, strict=True)
        if suite in one.results
    ]
    return [
        f"{suite}: {name} was asked {result.n:,} examples that are not those of {first[0]}; they "
        "do not compare"
        for name, result in others
        if result.data["sha256"] != first[1].data["sha256"]
    ]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
