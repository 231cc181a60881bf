"""`llama-keras export`: a run, a .keras file or a checkpoint as a SavedModel."""

from pathlib import Path
from typing import Annotated, Any

import typer

from llama_keras.errors import InputError


def register(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    app.command("export")(_export)


def _export(
    model: Annotated[
        str, typer.Argument(help="Run directory, .keras file, or a checkpoint that continues text.")
    ],
    output: Annotated[
        Path, typer.Option(help="NAME/ (next free version) or NAME/VERSION, which must be new.")
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SETTING=VALUE",
            help="Of a generator's serving_default, such as max_new_tokens=128; repeatable.",
        ),
    ] = None,
) -> None:
    """Write a SavedModel that takes strings and gives answers, for TF Serving."""
    settings = dict(map(_setting, set_ or ()))
    print(f"exported {_load(model).export(output, **settings)}")


def _setting(text: str) -> tuple[str, Any]:
    import yaml

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputError(f"--set takes SETTING=VALUE such as temperature=0.7; received {text!r}.")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError:
        return name, value


def _load(model: str):
    path = Path(model).expanduser()
    file = path / "model.keras" if path.is_dir() else path
    if file.suffix == ".keras" and file.is_file():
        from llama_keras.tasks.task import Task

        return Task.load(file)
    from llama_keras.tasks import CausalLM

    try:
        return CausalLM.from_preset(model)
    except InputError as error:
        raise InputError(
            f"There is no model at '{model}': no run directory, no .keras file, and no checkpoint: "
            f"{error}"
        ) from None
