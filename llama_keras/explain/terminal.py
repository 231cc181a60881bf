"""Prints an explanation stage by stage, short."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llama_keras.explain.guide import STAGES, formulas, notes
from llama_keras.explain.records import Explanation, Layer, Token, Vectors

_ROWS = 16  # tokens of a table
_HEADS = 12
_NUMBERS = 4
_TEXT_SHOWN = 160  # characters of a long text


def print_explanation(found: Explanation, *, console: Console | None = None) -> None:
    """Prints every stage: a line that tells what happens, and its values.

    Args:
        found: from `explain`.
        console: where to; by default standard output.
    """
    console = console or Console(highlight=False)
    shown, formula_lines = notes(found), formulas(found)
    for number, (key, stage) in enumerate(STAGES.items(), start=1):
        title = Text(f"{number}. {stage.title}", style="bold")
        title.append(f"  [{stage.source}]", style="dim")
        console.print(title)
        console.print(Text(" ".join(filter(None, (stage.happens, shown.get(key))))))
        for formula in formula_lines[key]:
            console.print(Text(f"  {formula}", style="cyan"))
        for part in _PARTS[key](found):
            console.print(part)
        console.print()


def _text(found: Explanation):
    yield Text(f"  {_short(found.text)}")


def _cleaning(found: Explanation):
    for step, text in found.cleaned:
        yield Text(f"  {step}: {_short(text)}")


def _tokens(found: Explanation):
    table = _table("token", "id", "characters")
    for token in found.tokens[:_ROWS]:
        place = "no text" if token.start is None else f"{token.start}–{token.end}"
        table.add_row(Text(token.label), str(token.id), place)
    yield table
    yield from _rest(len(found.tokens))


def _corruption(found: Explanation):
    for corruption in found.corruptions:
        hit = ", ".join(found.tokens[place].label for place in corruption.hit[:_ROWS]) or "nothing"
        line = f"  {corruption.name} (rate {corruption.rate:g}, seed {corruption.seed}) hit {hit}"
        yield Text(line)
        yield Text(f"  → {_joined(corruption.tokens)}")


def _embeddings(found: Explanation):
    yield from _vectors(found, found.embeddings)


def _attention(found: Explanation):
    yield from _looks(found, found.layers[-1])


def _feed_forward(found: Explanation):
    yield Text(f"  layer {found.layers[-1].number}:")
    yield from _vectors(found, found.layers[-1].feed_forward)


def _contextual(found: Explanation):
    yield from _vectors(found, found.contextual)


def _output(found: Explanation):
    for prediction in found.output[:_ROWS]:
        if prediction.true is not None:
            true = prediction.true
            line = f"  token {prediction.place + 1}, truly {true.label}: {true.score:.4f}, rank "
            yield Text(f"{line}{prediction.rank}")
        likely = ", ".join(f"{guess.label} {guess.score:.3f}" for guess in prediction.guesses)
        yield Text(f"  likeliest: {likely}")


# Stage -> what gives its values.
_PARTS = {
    "text": _text,
    "cleaning": _cleaning,
    "tokens": _tokens,
    "corruption": _corruption,
    "embeddings": _embeddings,
    "attention": _attention,
    "feed_forward": _feed_forward,
    "contextual": _contextual,
    "output": _output,
}


def _looks(found: Explanation, layer: Layer):
    """Gives where the last token looks most, head by head, by each kernel."""
    tokens = found.input_tokens
    yield Text(f"  layer {layer.number}, where the last token ({tokens[-1].label}) looks most:")
    titles = (kernel.title.replace(", ", ",\n") for kernel in layer.attention)
    table = _table("head", *titles)
    heads = len(layer.attention[0].weights)
    for head in range(min(heads, _HEADS)):
        rows = [kernel.weights[head, -1] for kernel in layer.attention]
        table.add_row(str(head + 1), *(_most(tokens, row) for row in rows))
    table.add_row("mean", *(_most(tokens, kernel.mean[-1]) for kernel in layer.attention))
    yield table


def _most(tokens: list[Token], row) -> Text:
    best = (-row).argsort(kind="stable")[:2]
    return Text("  ".join(f"{tokens[at].label} {row[at]:.3f}" for at in best))


def _vectors(found: Explanation, vectors: Vectors):
    table = _table("token", "length", f"first of {vectors.values.shape[1]} numbers")
    for token, norm, row in list(
        zip(found.input_tokens, vectors.norms, vectors.values, strict=True)
    )[:_ROWS]:
        numbers = " ".join(f"{value:+9.4f}" for value in row[:_NUMBERS])
        table.add_row(Text(token.label), f"{norm:.3f}", numbers)
    yield table
    yield from _rest(len(found.input_tokens))


def _rest(count: int):
    if count > _ROWS:
        yield Text(f"  … and {count - _ROWS} more; --html or --json shows all", style="dim")


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 2), collapse_padding=True, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _joined(tokens: list[Token]) -> str:
    rest = " …" if len(tokens) > _ROWS else ""
    return " ".join(token.label for token in tokens[:_ROWS]) + rest


def _short(text: str) -> str:
    return text if len(text) <= _TEXT_SHOWN else f"{text[:_TEXT_SHOWN]}… ({len(text)} characters)"
