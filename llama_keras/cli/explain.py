"""`llama-keras explain`: one sentence through every stage of the pipeline."""

import json
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds the verb to the application."""
    app.command()(explain)


def explain(
    text: Annotated[str, typer.Argument(help="The sentence to explain.")],
    preset: Annotated[
        str | None,
        typer.Option(
            help="Built-in name, .gguf file, checkpoint directory or hf://org/name; by default "
            "smollm2-135m-instruct where it is installed, else llama-tiny (random)."
        ),
    ] = None,
    clean: Annotated[
        list[str] | None,
        typer.Option(metavar="STEP", help="A cleaning step, as lower; repeatable, in order."),
    ] = None,
    kernel: Annotated[
        str | None,
        typer.Option(help="dot_product or gaussian: what the model runs with; both are shown."),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="α of the Gaussian kernel; by default the model's, or 1.")
    ] = None,
    attention_mask: Annotated[
        str | None,
        typer.Option(help="causal or bidirectional; by default the model's own."),
    ] = None,
    layer: Annotated[
        list[int] | None,
        typer.Option(help="Show this layer, from 1; repeatable. First, middle and last if none."),
    ] = None,
    rate: Annotated[float, typer.Option(help="Share of tokens masked and deleted.")] = 0.15,
    seed: Annotated[int, typer.Option(help="The same seed gives the same noise.")] = 0,
    max_tokens: Annotated[int, typer.Option(help="Explain the first so many tokens.")] = 64,
    html: Annotated[
        Path | None, typer.Option(help="Write one page with heat maps of every head.")
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead.")
    ] = False,
) -> None:
    """Show what happens to a sentence, stage by stage, with the numbers."""
    from llama_keras.explain import Settings, explain_preset, print_explanation, write_page

    settings = Settings(
        clean=tuple(clean or ()),
        temperature=temperature,
        layers=tuple(layer or ()),
        rate=rate,
        seed=seed,
        max_tokens=max_tokens,
    )
    found = explain_preset(
        text, preset=preset, kernel=kernel, attention_mask=attention_mask, settings=settings
    )
    if html is not None:
        write_page(found, html)
    if json_output:
        typer.echo(json.dumps(found.to_dict(), ensure_ascii=False))
        return
    print_explanation(found)
    if html is not None:
        typer.echo(f"wrote {html}")
