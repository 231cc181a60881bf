"""What people hand to `TokenClassifier.fit`, as texts and entities in characters; and back to tags.

NumPy and Python only, but for reading a `tf.data.Dataset`. U units of a text, see `text.units`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llama_keras.errors import InputError
from llama_keras.tasks.tagging import Span, spans_of_tags, tags_of_spans
from llama_keras.tasks.text_data import as_texts_and_labels, is_raw_text, label_list
from llama_keras.text.characters import BLANK, character_class, needs_no_spaces

_SHOWN = 3


@dataclass
class SpanReport:
    """How entities fit the units of their texts; nothing is left out without being counted here."""

    spans: int = 0
    """Entities in all."""
    widened: int = 0
    """Begin or end within a unit; learned as the whole units that they touch."""
    overlapping: int = 0
    """Share a unit with a longer (or earlier) entity; not learned."""
    blank: int = 0
    """Hold white space only; not learned."""
    cut: int = 0
    """Longer than what two windows share, and whole in none; not learned."""
    examples: list[str] = field(default_factory=list)
    """The first few of them, for people."""

    def add(self, kind: str, where: str, text: str, span: Span) -> None:
        """Counts one entity that does not fit."""
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.examples) < _SHOWN:
            shown = text[span.start : span.end]
            self.examples.append(f"{where}: {kind} {shown!r:.40} at {span.start}-{span.end}")

    @property
    def misfits(self) -> dict[str, int]:
        """The counts of those that do not fit, without zeros."""
        kinds = ("widened", "overlapping", "blank", "cut")
        return {kind: getattr(self, kind) for kind in kinds if getattr(self, kind)}

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {kind}" for kind, count in self.misfits.items())
        return f"of {self.spans} entities {counts or 'all fit'}" + "".join(
            f"; {example}" for example in self.examples
        )


def join_words(words: Sequence[str], *, separator: str | None = None):
    """Gives the text of words, and the characters of each.

    Args:
        words: of one sentence.
        separator: stands between words. None takes nothing where at least half of the words hold
            a character of a script that is written without spaces (Chinese, Japanese, Thai, …),
            else a space.

    Returns:
        The text, and `(start, end)` for each word.

    Raises:
        InputError: a word is empty or no string.
    """
    for number, word in enumerate(words):
        if not isinstance(word, str) or not word:
            raise InputError(f"Word {number} is {word!r}; expected a string that is not empty.")
    if separator is None:
        dense = sum(any(map(needs_no_spaces, word)) for word in words)
        separator = "" if dense and 2 * dense >= len(words) else " "
    places, at = [], 0
    for word in words:
        places.append((at, at + len(word)))
        at += len(word) + len(separator)
    return separator.join(words), places


def is_raw_entities(x: Any) -> bool:
    """Says whether `x` holds texts or lists of words, not token features."""
    if is_raw_text(x):
        return True
    return isinstance(x, (list, tuple)) and all(isinstance(row, (list, tuple)) for row in x)


def as_texts_and_spans(x: Any, y: Any, *, separator: str | None = None):
    """Gives texts and entities in characters.

    Args:
        x: texts, or lists of words; or a `tf.data.Dataset` of texts, or of pairs of string vectors
            (words, tags), each sentence by itself or in ragged batches.
        y: for words as many tags each, in IOB2 or IOBES (sentences with an E- or S- tag); for
            texts lists of entities, `{"start", "end", "label"}` or `Span`, in code points; or None.
        separator: see `join_words`.

    Returns:
        N texts, and N lists of `Span`, sorted, or None without `y`.

    Raises:
        InputError: something does not fit; the message names the sentence and the tag or span.
    """
    if hasattr(x, "element_spec"):
        x, y = _read_dataset(x)
    if is_raw_text(x):
        texts, _ = as_texts_and_labels(x, None)
        if y is None:
            return texts, None
        _check_count(texts, y)
        rows = zip(texts, y, strict=True)
        return texts, [_spans(text, given, f"Text {i}") for i, (text, given) in enumerate(rows)]
    if y is not None:
        _check_count(x, y)
    texts, spans = [], []
    for number, words in enumerate(x):
        try:
            text, places = join_words(words, separator=separator)
            found = [] if y is None else _tagged(words, y[number])
        except InputError as error:
            raise InputError(f"Sentence {number}: {error}") from None
        texts.append(text)
        spans.append([Span(places[a][0], places[b - 1][1], label) for a, b, label in found])
    return texts, None if y is None else spans


def _check_count(x, y) -> None:
    if len(x) != len(y):
        raise InputError(f"There are {len(x)} texts but {len(y)} lists of entities or tags.")


def _tagged(words, tags) -> list[Span]:
    tags = [tag.decode() if isinstance(tag, bytes) else tag for tag in tags]
    if len(tags) != len(words):
        raise InputError(f"it has {len(words)} words but {len(tags)} tags.")
    # A head that speaks IOBES still learns from the usual IOB2 files, and the other way round.
    closed = any(str(tag)[:2] in ("E-", "S-") for tag in tags)
    return spans_of_tags(tags, scheme="IOBES" if closed else "IOB2")


def _spans(text: str, given, where: str) -> list[Span]:
    found = []
    for number, span in enumerate(given):
        try:
            parts = span if isinstance(span, Mapping) else Span(*span)._asdict()
            start, end, label = (parts[key] for key in ("start", "end", "label"))
        except (KeyError, TypeError):
            raise InputError(
                f"{where}, entity {number} is {span!r}; expected start, end (characters) and label."
            ) from None
        integers = all(isinstance(x, (int, np.integer)) for x in (start, end))
        if not integers or not 0 <= start < end <= len(text):
            raise InputError(
                f"{where}, entity {number}: characters {start} to {end} are no part of a text of "
                f"{len(text)}; expected 0 <= start < end <= {len(text)}."
            )
        if parts.get("text", text[start:end]) != text[start:end]:
            raise InputError(
                f"{where}, entity {number} should read {parts['text']!r}, but characters {start} "
                f"to {end} are {text[start:end]!r}; offsets count Unicode code points."
            )
        found.append(Span(int(start), int(end), str(label)))
    return sorted(found)


def _read_dataset(dataset):
    """Reads texts, or words and tags, out of a finite dataset."""
    if int(dataset.cardinality()) == -1:
        raise InputError("The dataset never ends; limit it with .take(…).")
    if not isinstance(dataset.element_spec, tuple):
        return as_texts_and_labels(dataset, None)
    columns: tuple[list, list] = ([], [])
    for element in dataset:
        if len(element) != 2 or not all(map(_holds_strings, element)):
            raise InputError(
                f"The dataset has elements {dataset.element_spec}; expected pairs (words, tags), "
                "each a vector of strings, unbatched or from .ragged_batch(…). Give texts with "
                "spans, or tags that are numbers, as lists."
            )
        for column, value in zip(columns, element, strict=True):
            rows = value.to_list() if hasattr(value, "to_list") else [value.numpy()]
            column.extend(label_list(row) for row in rows)
    return columns


def _holds_strings(value) -> bool:
    """Says whether a tensor is one row of strings, or a ragged batch of such rows."""
    rank = 2 if hasattr(value, "to_list") else 1
    return getattr(value, "dtype", None) == "string" and len(value.shape) == rank


def unit_tags(
    text: str, spans: Sequence[Span], starts, ends, *, scheme: str, report: SpanReport, where: str
) -> tuple[list[str], list[tuple[int, int]]]:
    """Gives the tags of a text's units, and the units `[first, last)` of each entity among them.

    Args:
        text: the text.
        spans: entities in characters.
        starts: (U,) first character of each unit.
        ends: (U,) one past the last.
        scheme: of the tags.
        report: gets the counts of what does not fit.
        where: names the text in them.
    """
    taken = np.zeros(len(starts), bool)
    found: list[Span] = []
    report.spans += len(spans)
    for span in sorted(spans, key=lambda span: (span.start - span.end, span.start)):
        first = int(np.searchsorted(ends, span.start, "right"))
        last = int(np.searchsorted(starts, span.end, "left"))
        if first >= last:
            report.add("blank", where, text, span)
        elif taken[first:last].any():
            report.add("overlapping", where, text, span)
        else:
            taken[first:last] = True
            found.append(Span(first, last, span.label))
            if trimmed(text, span)[:2] != (starts[first], ends[last - 1]):
                report.add("widened", where, text, span)
    tags = tags_of_spans(found, length=len(starts), scheme=scheme)
    return tags, sorted((span.start, span.end) for span in found)


def trimmed(text: str, span: Span) -> Span:
    """Gives a span without white space at its ends."""
    start, end = span.start, span.end
    while start < end and character_class(text[start]) == BLANK:
        start += 1
    while end > start and character_class(text[end - 1]) == BLANK:
        end -= 1
    return Span(start, end, span.label)
