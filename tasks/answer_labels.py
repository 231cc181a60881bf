"""Answers given by characters, as start and end tokens of rows; what does not fit is counted.

Axes: N questions, R rows (windows), C tokens of a context.
"""

import logging
from collections import Counter
from dataclasses import dataclass

import numpy as np

from llama_keras.tasks.question_data import Answer, Questions
from llama_keras.text.offsets import character_offsets

logger = logging.getLogger("llama_keras")

# What is counted -> what people are told.
_TOLD = {
    "moved": "%d of %d answers were not at their offset and found elsewhere in the context",
    "split": "%d of %d answers do not begin and end between tokens: learnt with the tokens around",
    "long": "%d of %d answers have more than max_answer_tokens tokens: never predicted whole",
    "lost": "%d of %d questions are left out: no answer of theirs is in the context",
    "wide": "%d of %d questions are left out: their answer is longer than a window",
}


@dataclass(frozen=True)
class TokenSpan:
    """The tokens of a context that hold an answer, `first` to `last`, both within.

    Attributes:
        first: number of the first token.
        last: number of the last.
        is_moved: whether the answer was not where the data say.
        is_exact: whether the tokens spell the answer alone, but for outer white space.
    """

    first: int
    last: int
    is_moved: bool
    is_exact: bool


def locate(answer: Answer, context: str) -> int | None:
    """Gives the character at which an answer is: where the data say, else the nearest such text.

    Returns:
        None where the text is empty or not in the context.
    """
    text, at = answer.text, answer.start
    if not text.strip():
        return None
    if at >= 0 and context.startswith(text, at):
        return at
    before, after = context.rfind(text, 0, max(at, 0) + len(text)), context.find(text, max(at, 0))
    found = [place for place in (before, after) if place >= 0]
    return min(found, key=lambda place: abs(place - at), default=None)


def token_span(answers: list[Answer], context: str, offsets: np.ndarray) -> TokenSpan | None:
    """Gives the tokens of the first answer that is at its offset, else of the first found at all.

    Args:
        answers: the right answers, of which training takes one.
        context: the raw context.
        offsets: characters (start, end) of each token, int `(C, 2)`.
    """
    places = [(locate(answer, context), answer) for answer in answers]
    found = [(at, answer) for at, answer in places if at is not None]
    if not found:
        return None
    at, answer = next((pair for pair in found if pair[0] == pair[1].start), found[0])
    start = at + len(answer.text) - len(answer.text.lstrip())
    end = start + len(answer.text.strip())
    first = int(np.searchsorted(offsets[:, 1], start, side="right"))
    last = int(np.searchsorted(offsets[:, 0], end, side="left")) - 1
    if first > last:
        return None  # the tokenizer lacks these characters
    covered = context[offsets[first, 0] : offsets[last, 1]]
    return TokenSpan(first, last, at != answer.start, covered.strip() == answer.text.strip())


class LabelCounts:
    """What was seen while answers became labels, told once at the end.

    Args:
        max_answer_tokens: tokens of the longest answer that is ever predicted.
    """

    def __init__(self, max_answer_tokens: int):
        self._longest = max_answer_tokens
        self._counts, self._total = Counter(), 0

    def add(self, span: TokenSpan | None, *, is_labelled: bool) -> None:
        """Counts one question that has answers; `span` is None where none was found."""
        self._total += 1
        if span is None:
            self._counts["lost"] += 1
            return
        self._counts["wide"] += not is_labelled
        self._counts["moved"] += span.is_moved
        self._counts["split"] += not span.is_exact
        self._counts["long"] += span.last - span.first + 1 > self._longest

    def tell(self) -> None:
        """Writes the counts that are not zero to the log."""
        for name, message in _TOLD.items():
            if self._counts[name]:
                logger.warning(message, self._counts[name], self._total)


def row_labels(span: TokenSpan | None, *, prefix, first, lengths) -> np.ndarray:
    """Gives the start and end position in each row of one question, int32 `(R, 2)`.

    A window that does not hold the whole answer has both at its last token, "not here".

    Args:
        span: the answer's tokens in the context; None for no answer.
        prefix: tokens before each window, `(R,)`.
        first: number of each window's first context token, `(R,)`.
        lengths: tokens of each row, `(R,)`.
    """
    null = np.stack([lengths - 1, lengths - 1], axis=1)
    if span is None:
        return null.astype("int32")
    size = lengths - prefix - 1
    is_whole = (span.first >= first) & (span.last < first + size)
    places = np.stack([span.first - first + prefix, span.last - first + prefix], axis=1)
    return np.where(is_whole[:, None], places, null).astype("int32")


def labelled_rows(
    questions: Questions, windows, counts: LabelCounts
) -> list[tuple[int, np.ndarray]]:
    """Gives the rows to train on, as (number of the row, its start and end).

    Args:
        questions: N questions with their answers.
        windows: their `data.context_windows.Windows`.
        counts: gets what was seen.
    """
    pair, prefix, first = (np.asarray(x) for x in (windows.pair, windows.prefix, windows.first))
    lengths = np.asarray(windows.lengths())
    tokenized = [text.decode() for text in np.asarray(windows.contexts).tolist()]
    kept, by_text = [], {}
    for number, (context, answers) in enumerate(
        zip(questions.contexts, questions.answers or [], strict=True)
    ):
        rows, span = np.flatnonzero(pair == number), None
        if answers:
            text = tokenized[number]
            if text not in by_text:
                places = (np.asarray(x[number]) for x in (windows.starts, windows.ends))
                starts, ends = places
                found = character_offsets(text, starts=starts, ends=ends)
                by_text[text] = np.array(found, "int64").reshape(-1, 2)
            span = token_span(answers, context, by_text[text])
        labels = row_labels(span, prefix=prefix[rows], first=first[rows], lengths=lengths[rows])
        if answers:
            is_labelled = bool((labels[:, 0] != lengths[rows] - 1).any())
            counts.add(span, is_labelled=is_labelled)
            if not is_labelled:
                continue
        kept += list(zip(rows.tolist(), labels, strict=True))
    return kept
