"""`llama-keras evaluate run … --parity`: whether two models answer alike."""

import json
from pathlib import Path
from typing import Any

import typer

from llama_keras.cli.evaluate import EXIT_UNAVAILABLE
from llama_keras.errors import UnavailableError
from llama_keras.eval.parity import Parity, parity

# Examples shown; the others are in the JSON.
_SHOWN = 20
_WIDTH = 300


def run_parity(
    suites: list, *, a: str, b: str, output: Path | None, as_json: bool, **arguments: Any
) -> None:
    """Prints what differs, and exits with 1 where something does.

    Args:
        suites: from `eval.load_suite`.
        a, b: what `--model` takes.
        output: a folder for `parity.json`.
        as_json: print that instead of the report.
        **arguments: of `eval.parity.parity`.
    """
    try:
        found = [parity(suite, a=a, b=b, **arguments) for suite in suites]
    except UnavailableError as error:
        typer.echo(f"llama-keras: {error}", err=True)
        raise typer.Exit(EXIT_UNAVAILABLE) from None
    text = json.dumps([one.to_dict() for one in found], indent=2, ensure_ascii=False)
    if output is not None:
        from llama_keras.atomic import write_text

        output.mkdir(parents=True, exist_ok=True)
        write_text(output / "parity.json", text + "\n")
    if as_json:
        print(text)
    else:
        for one in found:
            _print(one)
    if any(one.differences for one in found):
        raise typer.Exit(1)


def _print(found: Parity) -> None:
    for name, target in (("a", found.a), ("b", found.b)):
        print(f"{name}: {target['kind']} {target['location']}")
    if found.differences:
        verdict = f"{len(found.differing)} of {found.n} examples differ"
    else:
        verdict = f"all {found.n} examples alike"
    print(f"{found.suite}: {verdict} ({found.requests} requests)")
    print(f"  tolerance of numbers {found.tolerance:g}, {found.tolerance_reason}")
    for key, value in found.largest.items():
        print(f"  largest difference of {key}: {value:.3g}")
    for key, name in found.unshared.items():
        print(f"  {key}: only {name} tells it")
    for difference in found.differences[:_SHOWN]:
        asked = _short(difference.request)
        print(f"example {difference.doc_id}: {', '.join(difference.keys)}; asked {asked}")
        print(f"  a: {_short(difference.a)}")
        print(f"  b: {_short(difference.b)}")
    if more := len(found.differences) - _SHOWN:
        if more > 0:
            print(f"and {more} more; --json or --output DIR has all")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
