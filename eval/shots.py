"""Worked examples: which ones stand before which example."""

import random
from collections.abc import Callable, Sequence

from llama_keras.errors import InputError
from llama_keras.eval.requests import Doc
from llama_keras.eval.suite import Suite


def shot_chooser(
    suite: Suite, docs: Sequence[Doc], pool: Sequence[Doc] | None
) -> Callable[[int], list[int]]:
    """Gives a function from an example's number to the numbers of its worked examples.

    The draw depends on the suite's seed and the example's number alone, so neither a limit nor the
    order of asking changes a prompt.

    Args:
        suite: says how many.
        docs: all examples of the suite.
        pool: where worked examples come from; None means `docs`, without the one that is asked.

    Raises:
        InputError: there are not so many.
    """
    count, source = suite.shots.count, docs if pool is None else pool
    others = len(source) - (pool is None)
    if count > others:
        raise InputError(
            f"{suite.name} asks for {count} worked examples, and there are {max(others, 0)}."
        )

    def choose(number: int) -> list[int]:
        if not count:
            return []
        drawn = random.Random(f"{suite.shots.seed}/{number}").sample(range(len(source)), count + 1)
        return [shot for shot in drawn if pool is not None or shot != number][:count]

    if pool is not None and count == len(source):
        return lambda number: list(range(count))
    return choose
