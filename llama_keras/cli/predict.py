"""`llama-keras predict`: ask a server or an exported model about texts."""

import asyncio
import base64
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError

# What stands for a row where it has one of these: of a classifier, of a CausalLM.
_SHOWN_FIRST = ("label", "score", "text")
_FEW = 100  # texts that are answered before a bar would be read


def register(app: typer.Typer) -> None:
    """Add the verb `predict` to the command line."""

    @app.command("predict")
    def predict(
        target: Annotated[
            str,
            typer.Argument(
                help="http(s)://HOST:PORT/v1/models/NAME, grpc(s)://HOST:PORT/NAME, or an "
                "export's folder."
            ),
        ],
        texts: Annotated[
            list[str] | None,
            typer.Argument(
                help="Texts, or JSON objects of a model's inputs by name such as "
                '\'{"question": "…", "context": "…"}\'; by default lines of standard input.'
            ),
        ] = None,
        signature: Annotated[
            str | None, typer.Option(help="Signature; by default serving_default.")
        ] = None,
        timeout: Annotated[float, typer.Option(help="Seconds to wait for a server.")] = 60.0,
        token: Annotated[
            str | None,
            typer.Option(help="Sent to the server as a bearer token.", envvar="LLAMA_KERAS_TOKEN"),
        ] = None,
        ca_file: Annotated[
            str | None, typer.Option(help="Certificates (PEM) to trust, for https and grpcs.")
        ] = None,
        batch_size: Annotated[int, typer.Option(min=1, help="Texts a request.")] = 32,
        concurrency: Annotated[
            int, typer.Option(min=1, help="Requests that a server is sent at once.")
        ] = 4,
        output: Annotated[
            Path | None,
            typer.Option(help="Write all outputs there as JSON lines, in place of printing."),
        ] = None,
        as_json: Annotated[
            bool, typer.Option("--json", help="Print a JSON list with all outputs.")
        ] = False,
    ) -> None:
        """Print each text's label and score, or how it goes on, from a server or a SavedModel."""
        settings = {"timeout": timeout, "token": token, "ca_file": ca_file}
        asked, answers = ask(
            target,
            texts or _read_lines(),
            signature=signature,
            batch_size=batch_size,
            concurrency=concurrency,
            **settings,
        )
        if output is not None:
            _write(output, asked, answers)
        else:
            _print(asked, list(_watched(answers, len(asked))), as_json=as_json)


def answer(target: str, texts: list[str], **settings: Any) -> list[dict[str, Any]]:
    """Return one dict of outputs per text from a URL or a SavedModel folder; see `ask`."""
    return [row for part in ask(target, texts, **settings)[1] for row in part]


def ask(
    target: str,
    texts: list[str],
    *,
    signature: str | None = None,
    batch_size: int = 32,
    concurrency: int = 4,
    **settings: Any,
) -> tuple[list[Any], Iterator[list[dict[str, Any]]]]:
    """Return what is asked and, part by part while they come, one dict of outputs for each.

    Args:
        target: a URL or the folder of a SavedModel.
        texts: strings. JSON objects that name the signature's inputs are taken for these.
        signature: its name, by default `serving_default`.
        batch_size: texts a request.
        concurrency: requests that a server is sent at once.
        **settings: of `serving.client.AsyncClient`.

    Raises:
        InputError: no such model or signature, or the texts are not what it takes.
    """
    if "://" in target:
        return _ask_server(target, texts, signature, batch_size, concurrency, settings)
    from ..serving.local import SavedModel

    model = SavedModel(target)
    asked = _rows(texts, sorted(model.signature(signature).inputs))
    parts = (asked[at : at + batch_size] for at in range(0, len(asked), batch_size))
    return asked, (model.predict(part, signature, batch_size=batch_size) for part in parts)


def _ask_server(target, texts, signature, batch_size, concurrency, settings):
    from ..serving.client import AsyncClient, ServingError

    # Each is a row of requests under way at once.
    size = batch_size * concurrency
    runner = asyncio.Runner()
    try:
        client = AsyncClient(target, concurrency=concurrency, **settings)
        asked = _rows(texts, runner.run(client.inputs(signature)))
    except ServingError as error:
        runner.close()
        raise InputError(str(error)) from None

    def answers() -> Iterator[list[dict[str, Any]]]:
        with runner:
            try:
                for at in range(0, len(asked), size):
                    part = asked[at : at + size]
                    yield runner.run(
                        client.predict(part, signature=signature, batch_size=batch_size)
                    )
            except ServingError as error:
                raise InputError(str(error)) from None
            finally:
                runner.run(client.close())

    return asked, answers()


def _rows(texts: list[str], names: list[str]) -> list[Any]:
    """Return texts as they are, or what their JSON objects have under the inputs' names."""
    if not all(text.startswith("{") for text in texts):
        return list(texts)
    rows = [_object(text) for text in texts]
    if len(names) == 1 and not all(row is not None and names[0] in row for row in rows):
        return list(texts)  # texts that just look so
    for text, row in zip(texts, rows, strict=True):
        if row is None:
            raise InputError(f"{text[:80]!r} is no JSON object.")
    found = [row for row in rows if row is not None]
    return [{name: row[name] for name in names if name in row} for row in found]


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _watched(answers: Iterator[list[dict[str, Any]]], total: int) -> Iterator[dict[str, Any]]:
    """Yield the answers one by one; where there are many, under a bar with their rate."""
    from llama_keras.eval.progress import progress_bar

    with progress_bar("predict", total=total, visible=total > _FEW) as advance:
        for part in answers:
            yield from part
            advance(len(part))


def _write(file: Path, asked: list[Any], answers: Iterator[list[dict[str, Any]]]) -> None:
    # Asked before the file is opened: what an earlier run wrote is not lost to a dead server.
    answers = itertools.chain([next(answers, [])], answers)
    try:
        with file.open("w", encoding="utf-8") as lines:
            rows = _watched(answers, len(asked))
            for text, row in zip(asked, rows, strict=True):
                lines.write(_line(text, row) + "\n")
                lines.flush()
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error}.") from None
    print(f"Wrote {len(asked)} answers to {file}.", file=sys.stderr)


def _read_lines() -> list[str]:
    if sys.stdin.isatty():
        raise InputError(
            'No texts given; write llama-keras predict TARGET "text", or pipe lines into it.'
        )
    try:
        content = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"Standard input is not UTF-8 at byte {error.start}; convert it first."
        ) from None
    lines = [line for line in content.split("\n") if line.strip()]
    if not lines:
        raise InputError("No texts given and standard input is empty; pass them as arguments.")
    return [line.removesuffix("\r") for line in lines]


def _print(texts: list[Any], rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        lines = [_line(text, row) for text, row in zip(texts, rows, strict=True)]
        print("[{}]".format(",\n ".join(lines)))
    elif sys.stdout.isatty():
        _print_table(texts, rows)
    else:
        for text, row in zip(texts, rows, strict=True):
            cells = [*(_cell(row[name]) for name in _columns(row)), _cell(text)]
            print("\t".join(" ".join(cell.split()) for cell in cells))


def _print_table(texts: list[Any], rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = _columns(rows[0])
    table = Table(*columns, "prompt" if "text" in columns else "text")
    for text, row in zip(texts, rows, strict=True):
        table.add_row(*(Text(_cell(row[name])) for name in columns), Text(_cell(text)))
    Console().print(table)


def _line(text: Any, row: dict[str, Any]) -> str:
    """Return an answer as JSON, with what was asked under a name that hides no output."""
    name = "input" if isinstance(text, dict) else "prompt" if "text" in row else "text"
    return json.dumps({name: text, **row}, ensure_ascii=False, default=_plain)


def _columns(row: dict[str, Any]) -> list[str]:
    """Label and score, or the text that was written, where a row has just one; else all outputs."""
    one = [name for name in _SHOWN_FIRST if isinstance(row.get(name), str | float)]
    return one or list(row)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode("ascii")}
    raise TypeError(f"cannot print a {type(value).__name__}")
