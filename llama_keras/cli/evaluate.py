"""`llama-keras evaluate`: how well a model, an export or a server does on a suite."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llama_keras.errors import InputError

if TYPE_CHECKING:
    from llama_keras.eval import Result


def register(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    app.command("evaluate")(_evaluate)


def _evaluate(
    suite: Annotated[str, typer.Argument(help="sst2, demo_sentiment, or a suite of your own.yaml")],
    model: Annotated[
        str,
        typer.Option(help="Run directory, .keras file, SavedModel folder, or URL of a server."),
    ],
    data: Annotated[
        str | None, typer.Option(help="Examples to take in place of the suite's (JSONL, CSV, …).")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take the first N examples.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts asked for at once.")] = 32,
    output: Annotated[
        Path | None, typer.Option(help="New folder for results.json and examples.jsonl.")
    ] = None,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC=VALUE", help="Exit with 1 when a metric is lower; repeatable."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Score a run, an export or a server on a suite of labelled texts."""
    from llama_keras.eval import evaluate, load_suite

    loaded = load_suite(suite)
    floors = dict(_floor(text, loaded.metrics) for text in fail_under or [])
    result = evaluate(
        loaded, model=model, data=data, limit=limit, batch_size=batch_size, output=output
    )
    if as_json:
        print(json.dumps(result.to_dict(), indent=2, ensure_ascii=False))
    else:
        _print_table(result, output)
    low = [name for name, floor in floors.items() if result.metrics[name].value < floor]
    for name in low:
        typer.echo(f"{name} {result.metrics[name].value:.4f} is under {floors[name]:g}", err=True)
    if low:
        raise typer.Exit(1)


def _floor(text: str, metrics: list) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        floor = float(value)
    except ValueError:
        raise InputError(
            f"--fail-under takes METRIC=VALUE such as accuracy=0.8; received {text!r}."
        ) from None
    if name not in metrics:
        raise InputError(f"--fail-under {text}: the suite's metrics are {metrics}.")
    return name, floor


def _print_table(result: "Result", output: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("metric", "value", "95 % interval", "by")
    for name, metric in result.metrics.items():
        interval = f"{metric.low:.4f} – {metric.high:.4f}"
        table.add_row(name, f"{metric.value:.4f}", interval, metric.interval)
    part = "" if result.limit is None else f" (limit {result.limit})"
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{result.suite}: {result.n} examples{part}", markup=False)
    console.print(table)
    console.print(
        f"{result.model['kind']} {result.model['location']}, {result.seconds:.1f} s, "
        f"{result.examples_per_second:.1f} examples/s",
        markup=False,
    )
    if output is not None:
        console.print(f"wrote {output}/results.json and {output}/examples.jsonl", markup=False)
