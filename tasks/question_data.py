"""The thin seam between questions as people hand them in and lists of Python strings."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from llama_keras.errors import InputError
from llama_keras.text.offsets import clean_text

_EXAMPLE = '{"question": …, "context": …, "answers": [{"text": …, "answer_start": …}]}'


@dataclass(frozen=True)
class Answer:
    """An answer as the data give it: its text, and where it begins (-1: not known)."""

    text: str
    start: int


@dataclass(frozen=True)
class Questions:
    """N questions with their contexts.

    Attributes:
        questions: the questions.
        contexts: the contexts.
        answers: a list of answers for each, empty for "none"; or None where the data have none.
    """

    questions: list[str]
    contexts: list[str]
    answers: list[list[Answer]] | None = None

    def __len__(self) -> int:
        return len(self.questions)

    def groups(self, *, most: int, characters: int) -> Iterator["Questions"]:
        """Yields parts, in order, of one question or more.

        Args:
            most: questions of a part.
            characters: of all contexts of a part, unless it is one question alone.
        """
        begin, total = 0, 0
        for at, context in enumerate(self.contexts):
            if at > begin and (at - begin == most or total + len(context) > characters):
                yield self._part(begin, at)
                begin, total = at, 0
            total += len(context)
        if begin < len(self):
            yield self._part(begin, len(self))

    def _part(self, begin: int, end: int) -> "Questions":
        answers = None if self.answers is None else self.answers[begin:end]
        return Questions(self.questions[begin:end], self.contexts[begin:end], answers)


def is_raw_questions(x) -> bool:
    """Says whether `x` holds questions and contexts, not token features."""
    if hasattr(x, "element_spec"):
        return isinstance(x.element_spec, dict) and "question" in x.element_spec
    if isinstance(x, Mapping):
        return "question" in x
    if _is_pair(x):
        return True
    return isinstance(x, list) and all(isinstance(row, Mapping) for row in x)


def _is_pair(x) -> bool:
    if not isinstance(x, tuple) or len(x) != 2:
        return False
    parts = [part.tolist() if isinstance(part, np.ndarray) else part for part in x]
    return all(
        isinstance(part, (list, tuple)) and all(isinstance(text, (str, bytes)) for text in part)
        for part in parts
    )


def as_questions(x, y=None) -> Questions:
    """Gives what `is_raw_questions` accepts as lists of strings.

    Args:
        x: dicts as SQuAD has them, a `tf.data.Dataset` of such dicts, or a pair of lists,
            questions and contexts.
        y: for a pair, the answers to each question; None otherwise.

    Raises:
        InputError: a question, a context or an answer is missing or is no text.
    """
    if _is_pair(x):
        questions, contexts = x
        if len(questions) != len(contexts):
            raise InputError(f"There are {len(questions)} questions but {len(contexts)} contexts.")
        if y is not None and len(y) != len(questions):
            raise InputError(f"There are {len(questions)} questions but answers to {len(y)}.")
        rows = [{"question": q, "context": c} for q, c in zip(questions, contexts, strict=True)]
        if y is not None:
            rows = [{**row, "answers": found} for row, found in zip(rows, y, strict=True)]
    elif y is not None:
        raise InputError("Answers stand in the examples themselves; leave y out.")
    elif hasattr(x, "element_spec"):
        rows = _dataset_rows(x)
    else:
        rows = [x] if isinstance(x, Mapping) else x
    answers = [_answers(row, index) for index, row in enumerate(rows)]
    return Questions(
        [_text(row, "question", index) for index, row in enumerate(rows)],
        [_text(row, "context", index) for index, row in enumerate(rows)],
        _all_or_none(answers),
    )


def _dataset_rows(dataset) -> list[Mapping[str, Any]]:
    if int(dataset.cardinality()) == -1:
        raise InputError("The dataset never ends; limit it with .take(…).")
    if dataset.element_spec["question"].shape.rank:
        raise InputError("The dataset is batched; hand it in with .unbatch().")
    return list(dataset.as_numpy_iterator())


def _text(row: Mapping[str, Any], key: str, index: int) -> str:
    value = row.get(key)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        raise InputError(f"Example {index} has no text as {key!r}; expected {_EXAMPLE}.")
    return clean_text(value)


def _answers(row: Mapping[str, Any], index: int) -> list[Answer] | None:
    if row.get("is_impossible"):
        return []
    value = row.get("answers")
    if value is None:
        return None
    if isinstance(value, Mapping):  # columns, as tfds and Hugging Face have them
        columns = [np.asarray(value.get(key, ())).tolist() for key in ("text", "answer_start")]
        value = [{"text": text, "answer_start": at} for text, at in zip(*columns, strict=True)]
    found = []
    for answer in value:
        start = answer.get("answer_start") if isinstance(answer, Mapping) else None
        if isinstance(start, bool) or not isinstance(start, (int, np.integer)):
            raise InputError(
                f"Example {index} has the answer {answer!r}; expected "
                '{"text": …, "answer_start": NUMBER}, -1 for an unknown place.'
            )
        found.append(Answer(_text(answer, "text", index), int(start)))
    return found


def _all_or_none(answers: list[list[Answer] | None]) -> list[list[Answer]] | None:
    given = [found for found in answers if found is not None]
    if not given:
        return None
    if len(given) != len(answers):
        raise InputError(
            f"Example {answers.index(None)} has no 'answers', but others have; give an empty list "
            "to a question without an answer."
        )
    return given
