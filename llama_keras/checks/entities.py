"""Checks of tagged sentences: tags and spans that do not fit."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from llama_keras.checks.records import Data, Example, Finding, Level, first_shown, quoted, worst
from llama_keras.errors import InputError
from llama_keras.tasks.entity_data import _spans, trimmed
from llama_keras.tasks.tagging import Span, check_tags
from llama_keras.text.characters import LETTER, MARK, character_class

# What may be wrong with a span -> whether training refuses it or makes do.
_SPAN_FAULTS: dict[str, Level] = {
    "outside of the text or malformed": "fail",
    "overlapping": "warn",
    "beginning or ending within a word": "warn",
    "with white space at an end": "warn",
}


def check_tag_rows(data: Data) -> Finding | None:
    """Finds sentences with more or fewer tags than words, or with tags against their scheme."""
    rows = [example for example in data.examples if example.words is not None]
    if not rows:
        return None
    scheme = data.recipe.data.tag_scheme
    found = [(example, fault) for example in rows if (fault := _tag_fault(example, scheme))]
    uneven = sum(len(example.words or ()) != len(example.target) for example, _ in found)
    illegal = len(found) - uneven
    return Finding(
        "fail" if found else "good",
        f"of {len(rows):,} sentences {uneven:,} have not as many tags as words, {illegal:,} break "
        f"{scheme}",
        len(found),
        first_shown((example.where, fault) for example, fault in found),
        {"misaligned": uneven, "illegal": illegal},
    )


def _tag_fault(example: Example, scheme: str) -> str:
    words, tags = example.words or [], example.target
    if len(words) != len(tags):
        return f"{len(words)} words but {len(tags)} tags: {quoted(example.texts[0])}"
    try:
        check_tags(tags, scheme=scheme)
    except InputError as error:
        return str(error)
    return ""


def check_spans(data: Data) -> Finding | None:
    """Finds spans that are no part of their text, overlap, or cut through a word."""
    rows = [example for example in data.examples if example.words is None]
    if not rows:
        return None
    found = [(kind, *shown) for example in rows for kind, shown in _span_faults(example)]
    counts = Counter(kind for kind, *_ in found)
    total = sum(len(example.target) for example in rows)
    told = ", ".join(f"{counts[kind]:,} {kind}" for kind in _SPAN_FAULTS if counts[kind])
    by_kind = sorted(found, key=lambda row: list(_SPAN_FAULTS).index(row[0]))
    return Finding(
        worst(_SPAN_FAULTS[kind] for kind in counts),
        f"of {total:,} spans {told or 'all fit'}",
        len(found),
        first_shown((where, text) for _, where, text in by_kind),
        dict(counts),
    )


def _span_faults(example: Example) -> Iterator[tuple[str, tuple[str, str]]]:
    text, spans = example.texts[0], []
    for span in example.target:
        try:
            spans += _spans(text, [span], "")
        except InputError as error:
            reason = str(error).removeprefix(", entity 0")
            yield "outside of the text or malformed", (example.where, reason.lstrip(" :"))
    reached = 0
    for span in sorted(spans):
        for kind in _misfits(text, span, reached):
            yield kind, example.shown(f"{text[span.start : span.end]} ({span.start}-{span.end})")
        reached = max(reached, span.end)


def _misfits(text: str, span: Span, reached: int) -> Iterator[str]:
    if span.start < reached:
        yield "overlapping"
    inner: Any = trimmed(text, span)
    if inner != span:
        yield "with white space at an end"
    if inner.start < inner.end and (_cuts(text, inner.start) or _cuts(text, inner.end)):
        yield "beginning or ending within a word"


def _cuts(text: str, at: int) -> bool:
    """Says whether a word goes on from before character `at` to after it."""
    if not 0 < at < len(text):
        return False
    before, after = character_class(text[at - 1]), character_class(text[at])
    return after == MARK or (before in (LETTER, MARK) and after == LETTER)
