"""`llama-keras train`: fine-tune, measure and save by a recipe."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    app.command("train")(_train)


def _train(
    recipe: Annotated[
        str, typer.Argument(help="sst2, conll2003, squad, multi30k …, or a file.yaml")
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
    for when, metrics in (("before, ", run.metrics.get("before", {})), ("", run.metrics)):
        for part in ("validation", "test"):
            if part in metrics:
                print(f"{when}{part}: {', '.join(_spelled(metrics[part]))}, n {metrics[part]['n']}")
    print(f"wrote {run.directory}/")
    if run.export:
        print(f"exported {run.export}")


def _spelled(scores: dict) -> list[str]:
    return [
        f"{name} {scores[name]:.4f} (95 % interval {low:.4f} – {high:.4f})"
        for name, (low, high) in scores["intervals"].items()
    ]
