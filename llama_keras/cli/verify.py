"""`llama-keras verify`: whether an export runs where this package is not."""

import json
from pathlib import Path
from typing import Annotated

import typer

from llama_keras.errors import InputError


def register(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    app.command("verify")(_verify)


def _verify(
    directory: Annotated[
        str, typer.Argument(help="NAME/, NAME/VERSION/ or a run directory with an export.")
    ],
    model: Annotated[
        Path | None,
        typer.Option(help="Run directory or .keras file that it was made of, to compare."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="How far a number may be from the recorded one.")
    ] = 1e-3,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Check that an export loads and answers without this package; exit with 1 if it does not."""
    from llama_keras.serving.verify import print_verification, verify

    task = None if model is None else _load(model)
    found = verify(directory, model=task, tolerance=tolerance)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
    else:
        print_verification(found)
    if found.level == "fail":
        raise typer.Exit(1)


def _load(path: Path):
    from llama_keras.tasks.task import Task

    file = path / "model.keras" if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"There is no model at '{path}': no run directory and no .keras file.")
    return Task.load(file)
