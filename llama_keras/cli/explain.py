"""`llama-keras explain`: one sentence through every stage of the pipeline."""

import json
import re
from pathlib import Path
from typing import Annotated, Any

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
        typer.Option(
            metavar="STEP",
            help="A cleaning step, as lower or remove_stop_words:language=zh; repeatable, in "
            "order. By default those that the preset learned with; none for no step.",
        ),
    ] = None,
    kernel: Annotated[
        str | None,
        typer.Option(help="dot_product or gaussian: what the model runs with; both are shown."),
    ] = None,
    normalize: Annotated[
        bool | None,
        typer.Option(
            "--normalized/--unnormalized",
            help="Whether the Gaussian weights that the model runs with add up to one (the "
            "article's do not); both are shown.",
            show_default=False,
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="α of the Gaussian kernel, run with and shown; by default as learned."),
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
        clean=_steps(clean),
        temperature=temperature,
        layers=tuple(layer or ()),
        rate=rate,
        seed=seed,
        max_tokens=max_tokens,
    )
    found = explain_preset(
        text,
        preset=preset,
        kernel=kernel,
        normalize=normalize,
        attention_mask=attention_mask,
        settings=settings,
    )
    if html is not None:
        write_page(found, html)
    if json_output:
        typer.echo(json.dumps(found.to_dict(), ensure_ascii=False))
        return
    print_explanation(found)
    if html is not None:
        typer.echo(f"wrote {html}")


def _steps(texts: list[str] | None) -> tuple[dict[str, Any], ...] | None:
    """Gives cleaning steps from `--clean`; None for those of the preset."""
    if not texts:
        return None
    return () if texts == ["none"] else tuple(_step(text) for text in texts)


def _step(text: str) -> dict[str, Any]:
    """Gives the step of `NAME` or `NAME:SETTING=VALUE,SETTING=VALUE`; values are read as YAML."""
    from llama_keras.errors import InputError

    name, colon, rest = text.partition(":")
    step: dict[str, Any] = {"name": name}
    for part in re.split(r",(?=\w+=)", rest) if colon else ():
        setting, equals, value = part.partition("=")
        if not equals or not setting:
            raise InputError(
                "--clean takes STEP or STEP:SETTING=VALUE such as remove_stop_words:language=zh; "
                f"received {text!r}."
            )
        step[setting] = _value(value)
    return step


def _value(text: str) -> Any:
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    # Bare marks stand for themselves, though YAML has other uses for # and -.
    return value if isinstance(value, str) or re.search(r"\w", text) else text
