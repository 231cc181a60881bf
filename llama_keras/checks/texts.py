"""Checks of the texts themselves: none, twice, in two parts, with two labels, oddly encoded."""

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations

from llama_keras.checks.reading import same_answer
from llama_keras.checks.records import (
    Data,
    Example,
    Finding,
    Level,
    first_shown,
    fold,
    level_of,
    quoted,
    share,
    worst,
)

# Repeats within a part are usual in small numbers.
_REPEATS = 0.01


def check_rows(data: Data) -> Finding:
    """Finds rows that training would refuse."""
    refused = [(part, row) for part in data.parts.values() for row in part.refused]
    read = f"{len(data.examples):,} read"
    if not refused:
        return Finding("good", f"{read}, none refused", details={"read": len(data.examples)})
    return Finding(
        "fail",
        f"{len(refused):,} that training refuses; {read}",
        len(refused),
        first_shown((f"{part.name}, {row.place}", row.reason) for part, row in refused),
        {"read": len(data.examples), "refused": len(refused)},
    )


def check_empty(data: Data) -> Finding:
    """Finds texts in which there is nothing to see."""
    found = [example for example in data.examples if not all(map(has_ink, example.texts))]
    total = len(data.examples)
    shown = first_shown(_emptied(example) for example in found)
    return Finding(
        level_of(len(found), total), f"{share(len(found), total)} are empty", len(found), shown
    )


def _emptied(example: Example) -> tuple[str, str]:
    return example.shown(next(text for text in example.texts if not has_ink(text)))


def has_ink(text: str) -> bool:
    """Says whether there is anything to see in a text."""
    return any(character.isprintable() and not character.isspace() for character in text)


def check_duplicates(data: Data) -> Finding:
    """Finds examples that occur twice in their part."""
    found: list[tuple[Example, Example]] = []
    for part in data.parts.values():
        first: dict[tuple, Example] = {}
        for example in part.examples:
            before = first.setdefault(example.key, example)
            if before is not example:
                found.append((before, example))
    total = len(data.examples)
    return Finding(
        "warn" if len(found) >= _REPEATS * total > 0 else "good",
        f"{share(len(found), total)} repeat one of their own part",
        len(found),
        first_shown((f"{b.where} = {a.place}", quoted(b.texts[0])) for a, b in found),
    )


def check_overlap(data: Data) -> Finding | None:
    """Finds examples that stand in two parts."""
    return _shared(data, "", lambda example: example.key)


def check_shared_texts(data: Data) -> Finding | None:
    """Finds contexts, and longer halves of pairs, that stand in two parts."""
    if not data.examples or len(data.examples[0].texts) < 2:
        return None
    found = _shared(
        data, " share the longer text", lambda example: fold(max(example.texts, key=len))
    )
    # The question is another one, so this is no leak of answers; but the text is known.
    return found and Finding(
        "warn" if found.count else "good",
        found.message,
        found.count,
        found.examples,
        found.details,
    )


def _shared(data: Data, what: str, key) -> Finding | None:
    parts = [part for part in data.parts.values() if part.examples]
    if len(parts) < 2:
        return None
    levels, messages, shown, details = [], [], [], {}
    for left, right in combinations(parts, 2):
        where = {}
        for example in left.examples:
            where.setdefault(key(example), example)
        twice = [(where[key(x)], x) for x in right.examples if key(x) in where]
        levels.append(level_of(len(twice), len(right.examples)))
        details[f"{right.name} in {left.name}"] = len(twice)
        if twice:
            counted = share(len(twice), len(right.examples))
            messages.append(f"{counted} of {right.name} are in {left.name}")
            shown.append([(f"{b.where} = {a.where}", quoted(b.texts[0])) for a, b in twice])
    if what and messages:
        messages = [message.replace(" are in ", f"{what} with ") for message in messages]
    # One of each pair of parts first.
    taken = [
        pair for column in zip(*(_padded(row) for row in shown), strict=True) for pair in column
    ]
    return Finding(
        worst(levels),
        "; ".join(messages) or "no part has anything of another",
        sum(details.values()),
        first_shown(pair for pair in taken if pair),
        details,
    )


def _padded(row: list) -> list:
    return (row + [None] * 3)[:3]


def check_conflicts(data: Data) -> Finding:
    """Finds texts to which different things are to be learnt."""
    groups: dict[tuple, list[Example]] = defaultdict(list)
    for example in data.examples:
        groups[example.key].append(example)
    found = [pair for group in groups.values() if (pair := _contradiction(group))]
    return Finding(
        level_of(len(found), len(groups)),
        f"{share(len(found), len(groups))} different texts have different answers",
        len(found),
        first_shown((f"{a.where} ≠ {b.where}", _both(a, b)) for a, b in found),
    )


def _contradiction(group: list[Example]) -> tuple[Example, Example] | None:
    first = same_answer(group[0])
    others = (example for example in group[1:] if same_answer(example) != first)
    return next(((group[0], other) for other in others), None)


def _both(a: Example, b: Example) -> str:
    answers = [", ".join(example.labels) or "none" for example in (a, b)]
    told = "" if answers[0] == answers[1] else f": {answers[0]} ≠ {answers[1]}"
    return f"{quoted(a.texts[0])}{told}"


def check_pairs(data: Data) -> Finding:
    """Finds pairs whose texts are the same, and negatives that are the positive."""
    found = []
    for example in data.examples:
        anchor, *others = example.key
        if anchor in others or len(set(others)) < len(others):
            found.append(example)
    return Finding(
        level_of(len(found), len(data.examples)),
        f"{share(len(found), len(data.examples))} have the same text twice",
        len(found),
        first_shown(example.shown() for example in found),
    )


# What to call it -> what it looks like; the first four are damage.
_ODDITIES = {
    "replacement characters": re.compile("\ufffd"),
    "lone surrogates": re.compile("[\ud800-\udfff]"),
    "control characters": re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"),
    "UTF-8 read as Latin-1": re.compile("[ÂÃ][\x80-\xbf]|â€"),
    # Joiners (U+200C, U+200D) are part of emoji and of several scripts.
    "zero-width characters": re.compile("[\u200b\u2060\ufeff\u00ad]"),
    "direction marks": re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]"),
    "HTML entities": re.compile(r"&(?:[a-z]{2,8}|#x?[0-9a-f]{1,6});|(?<!\S)#\d{2,4};"),
}
_DAMAGE = 4
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
_LEFT_TO_RIGHT = re.compile("[A-Za-z\u00c0-\u024f\u0370-\u052f]")


def check_characters(data: Data) -> Finding:
    """Finds signs of a wrong encoding and characters that nobody sees."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    seen = set()
    for example in data.examples:
        for text in example.texts:
            if text not in seen:
                seen.add(text)
                for kind, at in _oddities(text):
                    found[kind].append(example.shown(_around(text, at)))
    counts = {kind: len(places) for kind, places in found.items()}
    levels: list[Level] = [
        level_of(counts.get(kind, 0), len(seen)) if number < _DAMAGE else "warn"
        for number, kind in enumerate((*_ODDITIES, "mixed directions"))
        if kind in counts
    ]
    told = ", ".join(f"{count:,} with {kind}" for kind, count in counts.items())
    one_each = (places[0] for places in found.values())
    more = (place for places in found.values() for place in places[1:])
    return Finding(
        worst(levels),
        f"of {len(seen):,} different texts {told or 'none looks wrong'}",
        sum(counts.values()),
        first_shown((*one_each, *more)),
        counts,
    )


def _oddities(text: str) -> Iterator[tuple[str, int]]:
    for kind, pattern in _ODDITIES.items():
        if match := pattern.search(text):
            yield kind, match.start()
    if (
        not text.isascii()
        and (match := _RIGHT_TO_LEFT.search(text))
        and _LEFT_TO_RIGHT.search(text)
    ):
        yield "mixed directions", match.start()


def _around(text: str, at: int) -> str:
    begin = max(at - 20, 0)
    return f"{'…' if begin else ''}{text[begin : at + 30]}"
