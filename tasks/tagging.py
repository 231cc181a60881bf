"""Tags of tokens (IOB1, IOB2, IOBES) to entities and back, with the rule named that a tag breaks.

An entity is a `Span` of token numbers, or of characters where that is said.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llama_keras.errors import InputError

OUTSIDE = "O"


class Span(NamedTuple):
    """An entity: `[start, end)` and its type."""

    start: int
    end: int
    label: str


@dataclass(frozen=True)
class Scheme:
    """How tags spell entities.

    Attributes:
        prefixes: of the tags that a type has.
        follows: prefix -> what may stand before it, each as (prefix, must be of the same type).
        closes: prefixes that may end a sentence.
        rule: what to tell people.
    """

    prefixes: tuple[str, ...]
    follows: dict[str, tuple[tuple[str, bool], ...]]
    closes: frozenset[str]
    rule: str


_ANY_IOB = (("O", False), ("B", False), ("I", False))
_CLOSED = (("O", False), ("E", False), ("S", False))
SCHEMES = {
    "IOB1": Scheme(
        ("B", "I"),
        {"O": _ANY_IOB, "I": _ANY_IOB, "B": (("B", True), ("I", True))},
        frozenset("OBI"),
        "in IOB1 an entity is all I-; B- only parts it from one of its type just before",
    ),
    "IOB2": Scheme(
        ("B", "I"),
        {"O": _ANY_IOB, "B": _ANY_IOB, "I": (("B", True), ("I", True))},
        frozenset("OBI"),
        "in IOB2 an entity begins with B- and goes on with I- of its type",
    ),
    "IOBES": Scheme(
        ("B", "I", "E", "S"),
        {
            **dict.fromkeys(("O", "B", "S"), _CLOSED),
            **dict.fromkeys(("I", "E"), (("B", True), ("I", True))),
        },
        frozenset("OES"),
        "in IOBES an entity is B- I-… E- of one type, or S- where it is one token",
    ),
}


def get_scheme(name: str) -> Scheme:
    """Gives the scheme of a name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in SCHEMES:
        raise InputError(f"scheme={name!r} is not known; expected one of {list(SCHEMES)}.")
    return SCHEMES[name]


def tag_names(types: Sequence[str], *, scheme: str) -> list[str]:
    """Gives all tags: `O`, then those of each type."""
    prefixes = get_scheme(scheme).prefixes
    return [OUTSIDE, *(f"{prefix}-{name}" for name in types for prefix in prefixes)]


def split_tag(tag: str) -> tuple[str, str]:
    """Gives prefix and type, `("O", "")` for no entity."""
    prefix, _, name = tag.partition("-")
    return prefix, name


def _may_follow(before: str, tag: str, scheme: Scheme) -> bool:
    (left, left_type), (right, right_type) = split_tag(before), split_tag(tag)
    return any(
        left == prefix and (left_type == right_type or not same)
        for prefix, same in scheme.follows[right]
    )


def allowed(tags: Sequence[str], *, scheme: str) -> dict[str, list]:
    """Gives which tags may follow each other, begin and end, as `LinearChainCRF` takes it.

    Args:
        tags: C tags, see `tag_names`.
        scheme: their scheme.

    Returns:
        `allowed_transitions` (C lists of C bools, from the first index to the second),
        `allowed_starts` and `allowed_ends` (C bools each).
    """
    rules = get_scheme(scheme)
    return {
        "allowed_transitions": [[_may_follow(a, b, rules) for b in tags] for a in tags],
        "allowed_starts": [_may_follow(OUTSIDE, tag, rules) for tag in tags],
        "allowed_ends": [split_tag(tag)[0] in rules.closes for tag in tags],
    }


def check_tags(tags: Sequence[str], *, scheme: str) -> None:
    """Checks that tags are well written and legal in a scheme.

    Raises:
        InputError: one is not; the message names its number, itself and the rule.
    """
    rules = get_scheme(scheme)
    prefixes = (OUTSIDE, *rules.prefixes)
    before = OUTSIDE
    for number, tag in enumerate(tags):
        prefix, name = split_tag(tag) if isinstance(tag, str) else ("", "")
        if prefix not in prefixes or bool(name) != (prefix != OUTSIDE):
            raise InputError(
                f"Tag {number} is {tag!r}; the tags of {scheme} are O and "
                f"{', '.join(f'{prefix}-TYPE' for prefix in rules.prefixes)}."
            )
        if not _may_follow(before, tag, rules):
            place = f"after {before!r}" if number else "at the beginning"
            raise InputError(f"Tag {number}, {tag!r}, cannot stand {place}: {rules.rule}.")
        before = tag
    if tags and split_tag(before)[0] not in rules.closes:
        raise InputError(f"Tag {len(tags) - 1}, {before!r}, cannot be the last: {rules.rule}.")


def spans_of_tags(tags: Sequence[str], *, scheme: str) -> list[Span]:
    """Gives the entities of a sentence in token numbers.

    Args:
        tags: one for each token.
        scheme: a name of `SCHEMES`.

    Raises:
        InputError: see `check_tags`.
    """
    check_tags(tags, scheme=scheme)
    spans: list[Span] = []
    before = ("O", "")
    for number, tag in enumerate(tags):
        prefix, name = split_tag(tag)
        if prefix != OUTSIDE:
            # An I- begins an entity in IOB1 only, where none of its type is open.
            goes_on = prefix in ("I", "E") and before[1] == name and before[0] != OUTSIDE
            start = spans.pop().start if goes_on else number
            spans.append(Span(start, number + 1, name))
        before = (prefix, name)
    return spans


def tags_of_spans(spans: Sequence[Span], *, length: int, scheme: str) -> list[str]:
    """Gives the tags of a sentence of `length` tokens.

    Args:
        spans: entities in token numbers, in any order.
        length: the number of tokens.
        scheme: a name of `SCHEMES`.

    Raises:
        InputError: entities overlap, are empty or lie outside the sentence.
    """
    prefixes = get_scheme(scheme).prefixes
    tags, end, label_before = [OUTSIDE] * length, 0, ""
    for span in sorted(spans):
        if not 0 <= span.start < span.end <= length:
            raise InputError(f"{span} is empty or not within the {length} tokens.")
        if span.start < end:
            raise InputError(f"{span} overlaps the entity before it; one token has one tag.")
        size = span.end - span.start
        touches = span.start == end and span.label == label_before and end > 0
        kinds = ["I" if scheme == "IOB1" and not touches else "B", *["I"] * (size - 1)]
        if "E" in prefixes:
            kinds = ["S"] if size == 1 else [*kinds[:-1], "E"]
        tags[span.start : span.end] = [f"{kind}-{span.label}" for kind in kinds]
        end, label_before = span.end, span.label
    return tags


def convert_tags(tags: Sequence[str], *, source: str, target: str) -> list[str]:
    """Gives tags of one scheme in another, such as IOB1 in IOB2.

    Raises:
        InputError: see `check_tags`.
    """
    return tags_of_spans(spans_of_tags(tags, scheme=source), length=len(tags), scheme=target)


def entity_types(tags: Sequence[Sequence[str]]) -> list[str]:
    """Gives the types that occur in the tags of sentences, sorted."""
    return sorted({split_tag(tag)[1] for row in tags for tag in row} - {""})
