"""The `llama-keras` command: one file a verb, each adding itself through `register(app)`."""

import importlib
import sys
from typing import Annotated

import typer

from llama_keras import __version__
from llama_keras.cli.quiet import silence_tensorflow
from llama_keras.errors import InputError, MissingDependencyError

# In the order of a model's life; each is a file in this folder that imports heavy packages
# inside its function only, which keeps `--help` fast.
VERBS = (
    "demo",
    "data",
    "pretrain",
    "train",
    "launch",
    "plan",
    "evaluate",
    "export",
    "verify",
    "serve",
    "configure",
    "predict",
    "generate",
    "explain",
)


def build_app() -> typer.Typer:
    """Returns the command line application with every verb of `VERBS`."""
    app = typer.Typer(
        name="llama-keras",
        help="Llama in Keras, from raw text to a served model.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    for verb in VERBS:
        importlib.import_module(f"{__name__}.{verb}").register(app)
    return app


def main() -> None:
    """Runs the command line; a user's mistake prints one paragraph and exits with code 2."""
    silence_tensorflow()
    try:
        build_app()()
    except (InputError, MissingDependencyError) as error:
        print(f"llama-keras: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"llama-keras {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass
