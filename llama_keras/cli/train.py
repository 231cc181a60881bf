"""`llama-keras train`: fine-tune, measure and save by a recipe."""

from pathlib import Path
from typing import Annotated

import typer

# Options that `pretrain` has as well.
STRATEGIES = "none|mirrored|multi_worker|tpu|parameter_server"
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Override a field; repeatable."),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with an interrupted run in --output, if any.")
]
Replicas = Annotated[
    int | None,
    typer.Option(help="Of --strategy mirrored: GPUs, or shares of the CPU to try it out."),
]


def register(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    app.command("train")(_train)


def _train(
    recipe: Annotated[
        str, typer.Argument(help="sst2, conll2003, squad, multi30k …, or a file.yaml")
    ],
    output: Annotated[Path, typer.Option(help="Run directory; a new one, but for --resume.")],
    set_: Overrides = None,
    resume: Resume = False,
    strategy: Annotated[
        str,
        typer.Option(
            metavar=STRATEGIES,
            help="Over which devices tf.distribute spreads the training. (Which weights learn is "
            "the recipe's own field strategy: --set strategy=lora.)",
        ),
    ] = "none",
    replicas: Replicas = None,
) -> None:
    """Fine-tune a Llama on labelled texts: data, model, fit, evaluation, export."""
    from llama_keras.tasks.recipe import load_recipe
    from llama_keras.training.placement import distribution_of

    checked = load_recipe(recipe, overrides=set_ or ())
    distribution = distribution_of(strategy, replicas=replicas)  # before TensorFlow does anything
    from llama_keras.runner import run_recipe

    run = run_recipe(checked, output=output, resume=resume, distribution=distribution)
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
