"""What checks read, and what they find."""

import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from llama_keras.tasks.recipe import Recipe

Level = Literal["good", "warn", "fail"]
LEVELS: tuple[Level, ...] = ("good", "warn", "fail")
# From this share of the examples on a fault is no exception any more: `fail`.
FAIL_SHARE = 0.1
# Examples that a line shows.
SHOWN = 3
_WIDTH = 70


@dataclass(frozen=True)
class Example:
    """One example of a part, whatever its task."""

    part: str
    """"train", "validation" or "test"."""
    place: str
    """Where it stands in its source, such as "line 7"."""
    texts: tuple[str, ...]
    """One text; a pair; prompt and response; turns; question and context; anchor, positive, …"""
    labels: tuple[str, ...] = ()
    """Its labels; of a tagged sentence, the type of each entity."""
    target: Any = None
    """What is to be learnt, as the source has it: tags, spans, answers, messages, labels."""
    words: list[str] | None = None
    """The words of a sentence that has tags."""
    asked: int | None = None
    """How many of the texts, from the first on, make it the same example as another; None: all."""

    @cached_property
    def key(self) -> tuple[str, ...]:
        """Equal for examples that differ in normal form (NFC) and white space at most."""
        return tuple(fold(text) for text in self.texts[: self.asked])

    @property
    def where(self) -> str:
        """Part and place."""
        return f"{self.part}, {self.place}"

    def shown(self, text: str | None = None) -> tuple[str, str]:
        """Gives where it stands and `text` (by default its first), for a finding."""
        return self.where, quoted(self.texts[0] if text is None else text)


@dataclass(frozen=True)
class Refused:
    """What training would refuse."""

    place: str
    reason: str


@dataclass(frozen=True)
class Part:
    """One part of a data set: what can be read, and what cannot."""

    name: str
    source: str
    examples: list[Example]
    refused: list[Refused]
    loaded: Any = None
    """What the task's own loader gave; None where it refused."""


@dataclass(frozen=True)
class Data:
    """All that a recipe names."""

    recipe: Recipe
    parts: dict[str, Part]

    @property
    def train(self) -> Part:
        """The part that is learnt from."""
        return self.parts["train"]

    @property
    def held_out(self) -> list[Part]:
        """The other parts."""
        return [part for name, part in self.parts.items() if name != "train"]

    @cached_property
    def examples(self) -> list[Example]:
        """The examples of all parts."""
        return [example for part in self.parts.values() for example in part.examples]

    @cached_property
    def tokenizer(self):
        """The preset's `text.Tokenizer`.

        Raises:
            InputError: there is no such preset here.
        """
        from llama_keras.text import Tokenizer

        return Tokenizer.from_preset(self.recipe.preset)

    @cached_property
    def cleaning(self):
        """What the recipe, or else its preset, does to texts: a `text.Cleaning` or None.

        Raises:
            InputError: there is no such preset here.
        """
        from llama_keras.text.cleaning import get_cleaning
        from llama_keras.weights.presets import preset_cleaning, resolve

        if self.recipe.clean is not None or self.recipe.preset is None:
            return get_cleaning(self.recipe.clean)
        return get_cleaning(preset_cleaning(resolve(self.recipe.preset)))

    def clean(self, texts: list[str]) -> list[str]:
        """Gives texts as they reach the tokenizer; raises as `cleaning`."""
        return texts if self.cleaning is None else self.cleaning.clean(texts)


@dataclass(frozen=True)
class Finding:
    """What one check says."""

    level: Level
    """"good", "warn" or "fail"."""
    message: str
    """One line for people, with the numbers."""
    count: int = 0
    """How often the fault was found."""
    examples: tuple[tuple[str, str], ...] = ()
    """A few of them, as (place, what stands there)."""
    details: dict[str, Any] = field(default_factory=dict)
    """The numbers by name, for machines."""


@dataclass(frozen=True)
class Check:
    """A question to the data."""

    name: str
    run: Callable[[Any], Finding | None]
    """From a `Data`, what it finds, or None where the question makes no sense for these data."""


def level_of(count: int, total: int) -> Level:
    """Gives "good" for none, "fail" from `FAIL_SHARE` of `total` on, else "warn"."""
    if not count:
        return "good"
    return "fail" if count >= FAIL_SHARE * total else "warn"


def worst(levels: Iterable[Level]) -> Level:
    """Gives the worst of some levels, "good" of none."""
    found = set(levels)
    return "fail" if "fail" in found else "warn" if "warn" in found else "good"


def first_shown(found: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Gives the first few of what was found."""
    return tuple(pair for pair, _ in zip(found, range(SHOWN), strict=False))


def share(count: int, total: int) -> str:
    """Gives a count with what it is of, such as "3 of 1,821 (0.16 %)"."""
    if not count:
        return f"0 of {total:,}"
    percent = 100 * count / total
    return f"{count:,} of {total:,} ({percent:.{'2g' if percent < 99 else '0f'}} %)"


def fold(text: str) -> str:
    """Gives a text in NFC, with single spaces for white space and none around it."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def quoted(text: str) -> str:
    """Gives the beginning of a text in one line, with what cannot be seen spelled out."""
    shown = text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"
    return f"“{''.join(_visible(shown))}”"


def _visible(text: str) -> Iterator[str]:
    for character in text:
        is_shown = character.isprintable()
        yield character if is_shown else character.encode("unicode_escape").decode()
