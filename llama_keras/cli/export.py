"""`llama-keras export`: a run or a .keras file as a SavedModel."""

from pathlib import Path
from typing import Annotated

import typer

from llama_keras.errors import InputError


def register(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    app.command("export")(_export)


def _export(
    model: Annotated[Path, typer.Argument(help="Run directory or .keras file.")],
    output: Annotated[
        Path, typer.Option(help="NAME/ (next free version) or NAME/VERSION, which must be new.")
    ],
) -> None:
    """Write a SavedModel that takes strings and gives answers, for TF Serving."""
    file = model / "model.keras" if model.is_dir() else model
    if not file.is_file():
        raise InputError(f"There is no model at '{file}'; give a run directory or a .keras file.")
    from llama_keras.tasks.task import Task

    print(f"exported {Task.load(file).export(output)}")
