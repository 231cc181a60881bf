"""`llama-keras data`: what to know about data before training on them."""

import json
from collections.abc import Callable
from typing import Annotated, Any

import typer


def register(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    verbs = typer.Typer(no_args_is_help=True, help="Check the data that a recipe names.")
    verbs.callback()(_data)
    verbs.command("check")(_check)
    app.add_typer(verbs, name="data")


def _data() -> None:
    """Check the data that a recipe names."""


def _check(
    recipe: Annotated[
        str, typer.Argument(help="sst2, text_classification, article_small, or a file.yaml")
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Override a field; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Look for faults in the data of a recipe; exit with 1 when a check fails."""
    from llama_keras.checks import check_recipe, print_report
    from llama_keras.tasks import pretraining_recipe
    from llama_keras.tasks.recipe import load_recipe

    load: Callable[..., Any] = load_recipe
    if pretraining_recipe.is_pretraining_recipe(recipe):
        load = pretraining_recipe.load_pretraining_recipe
    report = check_recipe(load(recipe, overrides=set_ or ()))
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))
    else:
        print_report(report)
    if report.level == "fail":
        raise typer.Exit(1)
