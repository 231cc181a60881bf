"""`llama-keras demo`: the whole way once, on a real checkpoint."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    app.command("demo")(_demo)


def _demo(
    output: Annotated[
        Path | None, typer.Option(help="New run directory; by default the next runs/demo-N.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Override a field of demo_sentiment."),
    ] = None,
) -> None:
    """Load a real Llama, fine-tune it, evaluate, export, serve, and ask the server."""
    from llama_keras.demo import run_demo

    run_demo(output=output, overrides=set_ or ())
