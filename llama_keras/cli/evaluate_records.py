"""`llama-keras evaluate compare | report | rescore`: what is done with finished evaluations."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llama_keras.errors import InputError

if TYPE_CHECKING:
    from llama_keras.eval.compare import Flip, SuiteComparison

Folder = Annotated[Path, typer.Argument(help="Folder of a finished `evaluate run --output`.")]
_WIDTH = 200  # characters of an example's text


def compare(
    a: Folder,
    b: Annotated[Path, typer.Argument(help="Another; differences are B - A.")],
    suite: Annotated[
        str | None, typer.Option(help="This suite only; by default all that are in both.")
    ] = None,
    flips: Annotated[
        int, typer.Option(min=0, help="Show so many examples that only one has right.")
    ] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with all examples.")] = False,
) -> None:
    """Compare two evaluations of the same examples, by paired tests."""
    from llama_keras.eval.compare import compare as compare_folders

    found = compare_folders(a, b, suite=suite)
    if as_json:
        print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for name, side in (("A", found.a), ("B", found.b)):
        told = f"{side['folder']} ({side['model']['kind']} {side['model']['location']})"
        console.print(f"{name}: {told}", markup=False)
    for compared in found.suites.values():
        _print_comparison(console, compared, flips)
    if found.only_in_one:
        console.print(f"in one only: {', '.join(found.only_in_one)}", markup=False)


def _print_comparison(console, compared: "SuiteComparison", flips: int) -> None:
    from rich.table import Table

    head = ("metric", "A", "B", "B - A", "95 % interval", "p", "test", "won")
    # Without lines it fits into 80 columns.
    table = Table(*head, box=None, padding=(0, 1, 0, 0))
    for column in table.columns:
        column.no_wrap = True
    console.print(f"\n{compared.suite}, {compared.n} examples", markup=False)
    for name, change in compared.changes.items():
        sure = change.p_value < 0.05 and change.difference != 0
        winner = "B" if (change.difference > 0) == change.higher_is_better else "A"
        table.add_row(
            name,
            f"{change.a:.4f}",
            f"{change.b:.4f}",
            f"{change.difference:+.4f}",
            f"{change.low:+.4f} – {change.high:+.4f}",
            f"{change.p_value:.2g}",
            change.test,
            winner if sure else "",
        )
    console.print(table)
    for note in compared.notes:
        console.print(f"  {note}", markup=False)
    if compared.flips:
        won = sum(flip.right == "b" for flip in compared.flips)
        lost = len(compared.flips) - won
        console.print(f"  only B has {won} examples right, only A {lost}", markup=False)
    for flip in compared.flips[:flips]:
        console.print(_flip_line(flip), markup=False)


def _flip_line(flip: "Flip") -> str:
    text = json.dumps(flip.doc, ensure_ascii=False)
    text = text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
    said = "" if flip.a is None and flip.b is None else f": A {flip.a!r}, B {flip.b!r}"
    return (
        f"  {flip.doc_id}: {flip.right.upper()} is right{said}; expected {flip.expected!r}; {text}"
    )


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Of finished `evaluate run --output`; several for markdown."),
    ],
    format_: Annotated[
        str, typer.Option("--format", help="html: a page; markdown: a table for a README.")
    ] = "html",
    output: Annotated[
        Path | None,
        typer.Option(
            help="File; by default report.html in the folder, and for markdown the terminal."
        ),
    ] = None,
) -> None:
    """Write one HTML page with the figures, plots and wrong answers, or a Markdown table."""
    if format_ not in _FORMATS:
        raise InputError(f"--format {format_} is not known; there are {list(_FORMATS)}.")
    _FORMATS[format_](folders, output)


def _write_page(folders: list[Path], output: Path | None) -> None:
    from llama_keras.eval.report import write_report

    if len(folders) > 1:
        raise InputError("A page is of one folder; with --format markdown several make a table.")
    typer.echo(f"wrote {write_report(folders[0], output)}")


def _write_table(folders: list[Path], output: Path | None) -> None:
    from llama_keras.atomic import write_text
    from llama_keras.eval.report_markdown import markdown_report

    text = markdown_report(folders)
    if output is None:
        print(text, end="")
        return
    try:
        write_text(output, text)
    except OSError as error:
        raise InputError(
            f"{output} cannot be written ({error.strerror}); give a file in a folder that exists."
        ) from None
    typer.echo(f"wrote {output}")


_FORMATS = {"html": _write_page, "markdown": _write_table}


def rescore(
    folder: Folder,
    suite: Annotated[
        list[str] | None,
        typer.Option(help="A suite, or its file, in place of the one kept; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compute the metrics anew from the answers that were kept; no model is asked."""
    from llama_keras.eval.folder import read_evaluation
    from llama_keras.eval.rescore import rescore as rescore_folder

    before = read_evaluation(folder).results
    results = rescore_folder(folder, suites=suite or ())
    if as_json:
        print(json.dumps([r.to_dict() for r in results], indent=2, ensure_ascii=False))
        return
    for result in results:
        for name, metric in result.metrics.items():
            old = before[result.suite].metrics.get(name)
            was = "new" if old is None else f"was {old.value:.4f}"
            if old is not None and old.value == metric.value:
                was = "as before"
            typer.echo(f"{result.suite}: {name} {metric.value:.4f} ({was})")
    typer.echo(f"wrote {folder}/results.json and the samples beside it")
