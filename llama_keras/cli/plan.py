"""`llama-keras plan`: what a training run needs, on paper."""

import json
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    app.command("plan")(_plan)


def _plan(
    preset: Annotated[
        str,
        typer.Option(help="Built-in name, llama-3.2-1b, llama-3.1-8b, llama-2-7b, file or folder."),
    ],
    devices: Annotated[int, typer.Option(help="How many devices.")] = 1,
    device: Annotated[str, typer.Option(help="h100, h200, v5e, v5p or cpu.")] = "h100",
    batch_size: Annotated[int, typer.Option(help="Rows of a step, over all devices.")] = 8,
    sequence_length: Annotated[int, typer.Option(help="Tokens of a row.")] = 1024,
    strategy: Annotated[
        str, typer.Option(help="data, zero (weights in parts) or model (products split).")
    ] = "data",
    model_parallel: Annotated[
        int | None, typer.Option(help="Devices that split a product, with model; default all.")
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="float32, mixed_bfloat16, mixed_float16 or bfloat16.")
    ] = "mixed_bfloat16",
    optimizer: Annotated[
        str, typer.Option(help="sgd, momentum, lion, adam, adamw, lamb, adafactor or muon.")
    ] = "adamw",
    lora_rank: Annotated[
        int | None, typer.Option(help="Rank of LoRA's updates; without it all weights learn.")
    ] = None,
    remat: Annotated[
        bool, typer.Option("--remat", help="Compute activations anew in the backward pass.")
    ] = False,
    logits: Annotated[str, typer.Option(help="chunked or whole.")] = "chunked",
    attention: Annotated[
        str, typer.Option(help="scores (as LlamaAttention) or fused (a flash kernel).")
    ] = "scores",
    micro_batches: Annotated[int, typer.Option(help="Parts of a step's batch.")] = 1,
    overlap: Annotated[
        bool, typer.Option(help="Whether gradients and weights travel during products.")
    ] = True,
    tokens: Annotated[
        float | None, typer.Option(help="Tokens to train on, to tell how long it takes.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all numbers as JSON.")] = False,
) -> None:
    """Tell the memory, communication and time that a training run needs, without a device."""
    from llama_keras.planning.plan import plan
    from llama_keras.planning.terminal import print_plan

    found = plan(
        preset,
        device=device,
        devices=devices,
        batch_size=batch_size,
        sequence_length=sequence_length,
        strategy=strategy,
        model_parallel=model_parallel,
        dtype=dtype,
        optimizer=optimizer,
        lora_rank=lora_rank,
        remat=remat,
        logits=logits,
        attention=attention,
        micro_batches=micro_batches,
        overlap=overlap,
    )
    if as_json:
        typer.echo(json.dumps(found.to_dict(tokens=tokens), indent=2, ensure_ascii=False))
    else:
        print_plan(found, tokens=tokens)
