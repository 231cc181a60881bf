"""`llama-keras launch`: a training run in several processes of this machine."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    # What follows the first word belongs to the workers.
    settings = {"allow_interspersed_args": False, "ignore_unknown_options": False}
    app.command("launch", context_settings=settings)(_launch)


def _launch(
    words: Annotated[
        list[str], typer.Argument(metavar="train|pretrain …", help="As after `llama-keras`.")
    ],
    workers: Annotated[int, typer.Option(help="How many processes train together.")],
    restarts: Annotated[
        int, typer.Option(help="Start all again with --resume so often after one has failed.")
    ] = 0,
    gpus: Annotated[
        int | None, typer.Option(help="GPUs of each worker; without it all see all.")
    ] = None,
) -> None:
    """Train in several processes of this machine that start, fail and end together."""
    from llama_keras.training.launching import Launch, multi_worker_command

    command = multi_worker_command(words, workers=workers)
    raise typer.Exit(Launch(command, workers=workers, restarts=restarts, gpus=gpus).run())
