"""`llama-keras configure`: TF Serving's configuration files for exports."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    app.command("configure")(_configure)


def _configure(
    directories: Annotated[
        list[Path], typer.Argument(metavar="NAME/...", help="Folders of exports.")
    ],
    output: Annotated[Path, typer.Option(help="Folder of the three files.")],
    base_path: Annotated[
        str | None,
        typer.Option(help="Where the server finds the folders, such as /models in a container."),
    ] = None,
    cores: Annotated[int | None, typer.Option(help="Of the serving machine.")] = None,
    max_batch_size: Annotated[int, typer.Option(help="Rows run together at most.")] = 32,
) -> None:
    """Write models.config, batching.config and monitoring.config, each number with its reason."""
    from llama_keras.serving.tf_serving_config import commands, write_serving_config
    from llama_keras.serving.versions import find_model

    files = write_serving_config(
        directories,
        output=output,
        base_path=base_path,
        cores=cores,
        max_batch_size=max_batch_size,
    )
    for file in files:
        print(f"wrote {file}")
    parents = {find_model(directory).path.resolve().parents[1] for directory in directories}
    if base_path is None:
        print(f"Start the server with:\n{commands(output)}")
    elif len(parents) == 1:
        print(f"Start a container with:\n{commands(output, models=parents.pop(), to=base_path)}")
    else:
        print(f"Mount each model below {base_path}: they lie in several folders.")
