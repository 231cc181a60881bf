"""`llama-keras pretrain`: train a backbone on plain text by an objective."""

from pathlib import Path
from typing import Annotated

import typer

from llama_keras.cli.train import STRATEGIES, Overrides, Replicas, Resume


def register(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    app.command("pretrain")(_pretrain)


def _pretrain(
    recipe: Annotated[
        str, typer.Argument(help="article_small, denoising, plain_text …, or a file.yaml")
    ],
    output: Annotated[
        Path, typer.Option(help="Run directory, in the end a preset; a new one, but for --resume.")
    ],
    set_: Overrides = None,
    resume: Resume = False,
    strategy: Annotated[
        str,
        typer.Option(
            metavar=STRATEGIES,
            help="Over which devices tf.distribute spreads the training.",
        ),
    ] = "none",
    replicas: Replicas = None,
) -> None:
    """Train a Llama on plain text, from scratch or from a checkpoint, and leave a preset."""
    from llama_keras.tasks.pretraining_recipe import load_pretraining_recipe
    from llama_keras.training.placement import distribution_of

    checked = load_pretraining_recipe(recipe, overrides=set_ or ())
    distribution = distribution_of(strategy, replicas=replicas)  # before TensorFlow does anything
    from llama_keras.pretrainer import run_pretraining

    run = run_pretraining(checked, output=output, resume=resume, distribution=distribution)
    for when in ("before", "after"):
        scores = run.metrics[when]
        print(
            f"{when}: loss {scores['loss']:.4f}, perplexity {scores['perplexity']:.2f}, "
            f"accuracy {scores['accuracy']:.4f} ({run.metrics['measured_on']})"
        )
    print(f"wrote {run.directory}/, a preset for from_preset and --set preset=")
