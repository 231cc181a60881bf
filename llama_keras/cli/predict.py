"""`llama-keras predict`: ask a server or an exported model about texts."""

import base64
import json
import sys
from typing import Annotated, Any

import typer

from ..errors import InputError

# What stands for a row where it has one of these: of a classifier, of a CausalLM.
_SHOWN_FIRST = ("label", "score", "text")


def register(app: typer.Typer) -> None:
    """Add the verb `predict` to the command line."""

    @app.command("predict")
    def predict(
        target: Annotated[
            str, typer.Argument(help="http://HOST:PORT/v1/models/NAME, or an export's folder.")
        ],
        texts: Annotated[
            list[str] | None,
            typer.Argument(
                help="Texts, or for models of several inputs JSON objects such as "
                '\'{"question": "…", "context": "…"}\'; by default lines of standard input.'
            ),
        ] = None,
        signature: Annotated[
            str | None, typer.Option(help="Signature; by default serving_default.")
        ] = None,
        timeout: Annotated[float, typer.Option(help="Seconds to wait for a server.")] = 60.0,
        as_json: Annotated[
            bool, typer.Option("--json", help="Print a JSON list with all outputs.")
        ] = False,
    ) -> None:
        """Print each text's label and score, or how it goes on, from a server or a SavedModel."""
        asked = texts or _read_lines()
        rows = answer(target, asked, signature=signature, timeout=timeout)
        _print(asked, rows, as_json=as_json)


def answer(
    target: str, texts: list[str], *, signature: str | None = None, timeout: float = 60.0
) -> list[dict[str, Any]]:
    """Return one dict of outputs per text from a URL or a SavedModel folder.

    Texts that are JSON objects are rows of a signature with several inputs.
    """
    rows = [_row(text) for text in texts] if all(text.startswith("{") for text in texts) else []
    if "://" in target:
        from ..serving.client import Client

        with Client(target, timeout=timeout) as client:
            asked = rows if rows and len(client.inputs(signature)) > 1 else texts
            return client.predict(asked, signature=signature)
    from ..serving.local import SavedModel

    model = SavedModel(target)
    several = len(model.signature(signature).inputs) > 1
    return model.predict(rows if rows and several else texts, signature)


def _row(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{text[:80]!r} is no JSON object ({error}).") from None


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


def _print(texts: list[str], rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        named = [
            {"prompt" if "text" in row else "text": text, **row}
            for text, row in zip(texts, rows, strict=True)
        ]
        lines = [json.dumps(row, ensure_ascii=False, default=_plain) for row in named]
        print("[{}]".format(",\n ".join(lines)))
    elif sys.stdout.isatty():
        _print_table(texts, rows)
    else:
        for text, row in zip(texts, rows, strict=True):
            cells = [*(_cell(row[name]) for name in _columns(row)), text]
            print("\t".join(" ".join(cell.split()) for cell in cells))


def _print_table(texts: list[str], rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = _columns(rows[0])
    table = Table(*columns, "prompt" if "text" in columns else "text")
    for text, row in zip(texts, rows, strict=True):
        table.add_row(*(Text(_cell(row[name])) for name in columns), Text(text))
    Console().print(table)


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
