"""`llama-keras evaluate`: how well a model, an export or a server does on suites."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llama_keras.cli.evaluate_records import compare, report, rescore
from llama_keras.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from llama_keras.eval import Result

# Of a run that stopped because a server went away: the same command goes on.
EXIT_UNAVAILABLE = 3

Model = Annotated[
    str,
    typer.Option(
        help="Run directory, .keras file, export, URL of a server, or a checkpoint to prompt."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    verbs = typer.Typer(no_args_is_help=True, help="Measure models on suites of examples.")
    verbs.callback()(_evaluate)
    for name, verb in _VERBS.items():
        verbs.command(name)(verb)
    verbs.command("lm-eval", context_settings=_ALL_ARGUMENTS)(_lm_eval)
    app.add_typer(verbs, name="evaluate")


def _evaluate() -> None:
    """Measure models on suites of examples."""


def _run(
    suites: Annotated[list[str], typer.Argument(help="Names of `list`, or files of your own.yaml")],
    model: Model,
    data: Annotated[
        str | None, typer.Option(help="Examples to take in place of the suite's (JSONL, CSV, …).")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take the first N examples.")] = None,
    shots: Annotated[
        int | None, typer.Option(min=0, help="Worked examples before each prompt.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples asked for at once.")] = 32,
    dtype: Annotated[
        str | None, typer.Option(help="Of a checkpoint: float32, bfloat16, mixed_bfloat16.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the record; the same command goes on with it.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="File that keeps answers for later evaluations.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC=VALUE",
            help="Exit with 1 when a metric is worse; SUITE:METRIC=VALUE for one; repeatable.",
        ),
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Folder for TensorBoard's scalars of the results.")
    ] = None,
    step: Annotated[int, typer.Option(min=0, help="With --tensorboard: of the scalars.")] = 0,
    parity: Annotated[
        str | None,
        typer.Option(help="Ask this model, too, and list what differs: exit with 1 if any does."),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="With --parity: by which numbers may differ; by default as the models' precision "
            "has it, 1e-4 or, in 16 bits, 1e-2.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask a model for every example of some suites, and score the answers."""
    from llama_keras.eval import evaluate_suites, load_suite

    loaded = [load_suite(suite) for suite in suites]
    bounds = [_bound(text, loaded) for text in fail_under or []]
    settings: dict[str, Any] = {"dtype": dtype} if dtype else {}
    if parity is not None:
        from llama_keras.cli.evaluate_parity import run_parity

        if bounds or cache or tensorboard:
            raise InputError("--parity scores nothing; leave the options of scores and caches out.")
        return run_parity(
            loaded,
            a=model,
            b=parity,
            data=data,
            limit=limit,
            shots=shots,
            batch_size=batch_size,
            tolerance=tolerance,
            output=output,
            as_json=as_json,
            **settings,
        )
    try:
        results = evaluate_suites(
            loaded,
            model=model,
            data=data,
            limit=limit,
            shots=shots,
            batch_size=batch_size,
            output=output,
            cache=cache,
            seed=seed,
            **settings,
        )
    except UnavailableError as error:
        again = "the same command goes on from here" if output else "with --output DIR it goes on"
        typer.echo(f"llama-keras: {error} What was answered is kept; {again}.", err=True)
        raise typer.Exit(EXIT_UNAVAILABLE) from None
    if tensorboard is not None:
        from llama_keras.eval.tensorboard import write_scalars

        write_scalars(results, directory=tensorboard, step=step)
    if as_json:
        print(json.dumps([r.to_dict() for r in results], indent=2, ensure_ascii=False))
    else:
        _print_table(results, output)
    missed = [text for bound in bounds for text in bound(results)]
    for text in missed:
        typer.echo(text, err=True)
    if missed:
        raise typer.Exit(1)


def _list(as_json: AsJson = False) -> None:
    """List the suites that come with the package."""
    from llama_keras.eval.suite import load_suite, suite_names

    loaded = [load_suite(name) for name in suite_names()]
    if as_json:
        rows = [{"name": s.name, "task": s.task, "description": s.description} for s in loaded]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("suite", "task", "what it measures")
    for suite in loaded:
        table.add_row(suite.name, suite.task, suite.description)
    Console(highlight=False).print(table)


def _show(
    suite: Annotated[str, typer.Argument(help="A name of `list`, or a file of your own.yaml")],
    examples: Annotated[int, typer.Option(min=0, help="Show what is asked for so many.")] = 1,
) -> None:
    """Show a suite as it is read, and what it asks."""
    import yaml

    from llama_keras.eval.jobs import first_requests
    from llama_keras.eval.suite import load_suite

    loaded = load_suite(suite)
    print(yaml.safe_dump(loaded.model_dump(), sort_keys=False, allow_unicode=True).rstrip())
    for number, asked in enumerate(first_requests(loaded, examples)):
        print(f"# example {number} asks:")
        print(json.dumps(asked, indent=2, ensure_ascii=False))


# Even --help is the other program's.
_ALL_ARGUMENTS = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": [],
}


def _lm_eval(context: typer.Context) -> None:
    """Run lm-evaluation-harness with --model llama_keras added: what it takes stands behind."""
    from llama_keras.eval.lm_eval_adapter import main

    main(context.args)


_VERBS = {
    "run": _run,
    "list": _list,
    "show": _show,
    "compare": compare,
    "report": report,
    "rescore": rescore,
}


def _bound(text: str, suites: list):
    """Reads `--fail-under`: gives what finds the results that are worse than that."""
    from llama_keras.eval.kinds import METRIC_NAMES, get_kind

    path, _, value = text.partition("=")
    suite, colon, name = path.rpartition(":")
    try:
        bound = float(value)
    except ValueError:
        raise InputError(
            f"--fail-under takes METRIC=VALUE such as accuracy=0.8; received {text!r}."
        ) from None
    meant = [s for s in suites if not colon or s.name == suite]
    having = [s for s in meant if name in (s.metrics or METRIC_NAMES[s.task])]
    if not having:
        known = {s.name: list(s.metrics or METRIC_NAMES[s.task]) for s in meant or suites}
        raise InputError(f"--fail-under {text}: the metrics are {known}.")
    names = {s.name: get_kind(s.task).metrics[name].higher_is_better for s in having}

    def worse(results: "list[Result]") -> list[str]:
        found = []
        for result in results:
            if result.suite not in names or name not in result.metrics:
                continue
            number = result.metrics[name].value
            # Not `<`: a value that is not a number is worse than any bound.
            good = number >= bound if names[result.suite] else number <= bound
            if not good:
                side = "under" if names[result.suite] else "over"
                found.append(f"{result.suite}: {name} {number:.4f} is {side} {bound:g}")
        return found

    return worse


def _print_table(results: "list[Result]", output: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    table = Table("suite", "n", "metric", "value", "95 % interval", "by")
    for result in results:
        for name, metric in result.metrics.items():
            interval = f"{metric.low:.4f} – {metric.high:.4f}"
            row = (name, f"{metric.value:.4f}", interval, metric.interval)
            table.add_row(result.suite, str(result.n), *row)
    console.print(table)
    for result in results:
        part = "" if result.limit is None else f", the first {result.limit} of {result.original_n}"
        kept = f", {result.cached} from the cache" if result.cached else ""
        again = f", {result.resumed} examples from before" if result.resumed else ""
        console.print(
            f"{result.suite}: {result.model['kind']} {result.model['location']}{part}, "
            f"{result.seconds:.1f} s, {result.requests_per_second:.1f} requests/s{kept}{again}",
            markup=False,
        )
        if result.drift is not None:
            largest = max(result.drift["largest"].values(), default=0.0)
            others = len(result.drift["differing"])
            console.print(
                f"  asked one at a time, {result.drift['examples']} examples: {others} answered "
                f"otherwise, numbers within {largest:.1e}",
                markup=False,
            )
        for warning in result.warnings:
            console.print(f"  warning: {warning}", markup=False)
    if output is not None:
        console.print(f"wrote {output}/results.json and the samples beside it", markup=False)
