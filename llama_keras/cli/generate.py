"""`llama-keras generate`: continue a prompt, or answer it as a chat model."""

import dataclasses
import json
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds the verb to the application."""
    app.command()(generate)


def generate(
    prompt: Annotated[str, typer.Argument(help="Text to continue; with --chat, to answer.")],
    preset: Annotated[
        str,
        typer.Option(help="Built-in name, .gguf file, checkpoint directory or hf://org/name."),
    ] = "smollm2-135m-instruct",
    chat: Annotated[bool, typer.Option("--chat", help="Answer as a chat model.")] = False,
    max_new_tokens: Annotated[int, typer.Option(help="At most so many tokens.")] = 64,
    temperature: Annotated[float, typer.Option(help="0: the likeliest token each time.")] = 0.0,
    top_k: Annotated[int, typer.Option(help="Sample among the k likeliest; 0: all.")] = 0,
    top_p: Annotated[
        float, typer.Option(help="Sample among the likeliest that reach this probability; 1: all.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text.")] = 0,
    stop: Annotated[
        list[str] | None, typer.Option(help="End before this text; may be given several times.")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="keras; or litert: fast on CPU, int8 weights, a file made once.")
    ] = "keras",
    stream: Annotated[bool, typer.Option(help="Print the text as it comes.")] = True,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead, with log-probabilities.")
    ] = False,
) -> None:
    """Continue a prompt."""
    from llama_keras.models.sampling import SamplingSettings

    settings = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
    }
    SamplingSettings(**settings)  # a wrong value is told before the model loads

    from llama_keras.tasks import CausalLM

    # One short text is there sooner than XLA could compile for it.
    model = CausalLM.from_preset(preset, jit_generate=False)
    messages = [{"role": "user", "content": prompt}]
    settings.update(stop=stop or (), engine=engine)
    if stream and not json_output:
        for piece in model.stream(messages if chat else prompt, **settings):
            typer.echo(piece, nl=False)
        typer.echo()
        return
    answer = model.chat(messages, **settings) if chat else model.generate(prompt, **settings)
    record = json.dumps(dataclasses.asdict(answer), ensure_ascii=False)
    typer.echo(record if json_output else answer.text)
