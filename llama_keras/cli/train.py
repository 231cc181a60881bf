"""`llama-keras train`: fine-tune, measure and save by a recipe."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    app.command("train")(_train)


def _train(
    recipe: Annotated[
        str, typer.Argument(help="sst2, demo_sentiment, text_classification, or a file.yaml")
    ],
    output: Annotated[Path, typer.Option(help="New run directory.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Override a field; repeatable."),
    ] = None,
) -> None:
    """Fine-tune a Llama on labelled texts: data, model, fit, evaluation, export."""
    from llama_keras.runner import run_recipe
    from llama_keras.tasks.recipe import load_recipe

    run = run_recipe(load_recipe(recipe, overrides=set_ or ()), output=output)
    for part in ("validation", "test"):
        if part in run.metrics:
            scores = run.metrics[part]
            low, high = scores["intervals"]["accuracy"]
            print(
                f"{part}: accuracy {scores['accuracy']:.4f} (95 % interval {low:.4f} – {high:.4f}),"
                f" f1 {scores['f1']:.4f}, n {scores['n']}"
            )
    print(f"wrote {run.directory}/")
    if run.export:
        print(f"exported {run.export}")
