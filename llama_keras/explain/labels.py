"""How a token, or a cleaning step, is written where people look at it."""

import dataclasses
import json
import unicodedata
from typing import Any

from llama_keras.explain.records import Guess, Token

_SHOWN = {" ": "␣", "\n": "⏎", "\t": "⇥"}
# Categories of characters that leave no mark, or change how their neighbours are drawn.
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zs", "Zl", "Zp")


def visible(text: str) -> str:
    """Gives `text` with spaces and characters that cannot be seen spelled out."""
    return "".join(_SHOWN.get(char) or _spelled(char) for char in text)


def _spelled(char: str) -> str:
    return f"U+{ord(char):04X}" if unicodedata.category(char) in _UNSEEN else char


def step_label(step: Any) -> str:
    """Gives a cleaning step as `--clean` takes it: its name, and what is not as by default."""
    settings = [
        f"{field.name}={json.dumps(getattr(step, field.name), ensure_ascii=False)}"
        for field in dataclasses.fields(step)
        if getattr(step, field.name) != field.default
    ]
    return f"{step.name}:{','.join(settings)}" if settings else step.name


def tokens_of(tokenizer, encoding, *, text: str) -> list[Token]:
    """Gives the tokens of an `Encoding` of `text` with their labels."""
    found, same, before = [], 0, None
    spans = encoding.offsets
    for at, (id_, span) in enumerate(zip(encoding.ids, spans, strict=True)):
        start, end = span
        if start == end:
            found.append(without_text(tokenizer, id_))
            before = None
            continue
        same = same + 1 if span == before else 1
        shared = same > 1 or (at + 1 < len(spans) and spans[at + 1] == span)
        label = visible(text[start:end]) + (f"·{same}" if shared else "")
        found.append(Token(id_, label, start, end))
        before = span
    return found


def without_text(tokenizer, id_: int, *, label: str | None = None) -> Token:
    """Gives a token that stands for no characters of the text."""
    return Token(id_, label or id_label(tokenizer, id_), None, None)


def id_label(tokenizer, id_: int) -> str:
    """Gives what an id stands for by itself: its text, or its bytes where they are no text."""
    texts = tokenizer.token_bytes.texts
    data = texts[id_] if id_ < len(texts) else b""
    if not data:
        return f"<id {id_}>"
    try:
        return visible(data.decode())
    except UnicodeDecodeError:
        return "".join(f"<{byte:02X}>" for byte in data)


def guess(tokenizer, id_: int, score: float) -> Guess:
    """Gives a token with its probability."""
    return Guess(int(id_), id_label(tokenizer, int(id_)), float(score))
