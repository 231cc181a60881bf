"""Worked examples: which ones stand before which example."""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from llama_keras.errors import InputError
from llama_keras.eval.requests import Doc
from llama_keras.eval.suite import Suite

# Two sentences of WinoGrande that differ in the word that matters share six tenths of their words
# and more, others less than half.
NEARLY_THE_SAME = 0.5
# Draws beyond those needed; where so many are nearly the same, all are.
_MORE_DRAWS = 50
# Words; of scripts without blanks between them, characters.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")


def shot_chooser(
    suite: Suite, docs: Sequence[Doc], pool: Sequence[Doc] | None
) -> Callable[[int], list[int]]:
    """Gives a function from an example's number to the numbers of its worked examples.

    The draw depends on the suite's seed and the example's number alone, so neither a limit nor the
    order of asking changes a prompt. An example that shares half of its words with the one that is
    asked, such as its twin, is passed over: it would tell the answer, or the wrong one.

    Args:
        suite: says how many.
        docs: all examples of the suite.
        pool: where worked examples come from; None means `docs`, without the one that is asked. Of
            a pool with no more than `count` all are taken, as they are.

    Raises:
        InputError: there are not so many.
    """
    count, source = suite.shots.count, docs if pool is None else pool
    others = len(source) - (pool is None)
    if count > others:
        raise InputError(
            f"{suite.name} asks for {count} worked examples, and there are {max(others, 0)}."
        )

    words: dict[int, set[str]] = {}

    def words_of(shot: int) -> set[str]:
        if shot not in words:
            words[shot] = doc_words(source[shot])
        return words[shot]

    def choose(number: int) -> list[int]:
        if not count:
            return []
        draw = random.Random(f"{suite.shots.seed}/{number}")
        asked = doc_words(docs[number])
        chosen: list[int] = []
        passed: list[int] = []
        for shot in _without_end(draw, len(source), count + 1):
            if pool is None and shot == number:
                continue
            near = share_of_words(asked, words_of(shot)) >= NEARLY_THE_SAME
            (passed if near else chosen).append(shot)
            if len(chosen) == count or len(passed) > _MORE_DRAWS:
                break
        return [*chosen, *passed][:count]

    if pool is not None and count == len(source):
        return lambda number: list(range(count))
    return choose


def _without_end(draw: random.Random, total: int, count: int) -> Iterator[int]:
    """Gives `count` drawn numbers below `total`, and then the others, drawn as well; none twice."""
    first = draw.sample(range(total), count)
    yield from first
    seen = set(first)
    while len(seen) < total:
        if 2 * len(seen) > total:
            yield from draw.sample([n for n in range(total) if n not in seen], total - len(seen))
            return
        number = draw.randrange(total)
        if number not in seen:
            seen.add(number)
            yield number


def doc_words(doc: Doc) -> set[str]:
    """Gives the words of all texts of an example, in lower case."""

    def texts(value: Any) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            for part in value:
                yield from texts(part)

    return {word for value in doc.values() for text in texts(value) for word in _words(text)}


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def share_of_words(a: set[str], b: set[str]) -> float:
    """Gives the words that both have as a share of those that either has (Jaccard's index)."""
    return len(a & b) / max(len(a | b), 1)
