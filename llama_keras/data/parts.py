"""Parts of a source: what stands in brackets behind its name, such as `x.jsonl[:80%]`."""

import re
from dataclasses import dataclass

from llama_keras.errors import InputError

_BRACKETS = re.compile(r"\[(?:(\d+)%)?:(?:(\d+)%)?(?::(\d+)?)?\]$")


@dataclass(frozen=True)
class SourcePart:
    """Which examples of a source are taken.

    Attributes:
        first: percent of the examples that are left out at the beginning.
        last: percent after which the rest is left out.
        step: of what lies between, only each of that number is taken, from the first on.
    """

    first: int = 0
    last: int = 100
    step: int = 1

    def indices(self, count: int) -> range:
        """Gives the numbers, of `count` examples, of those that are taken."""
        return range(count * self.first // 100, count * self.last // 100, self.step)

    def of(self, rows: list) -> list:
        """Gives the rows that are taken."""
        return [rows[index] for index in self.indices(len(rows))]

    def __str__(self) -> str:
        if self == SourcePart():
            return ""
        return f"[{self.first}%:{self.last}%" + (f":{self.step}]" if self.step > 1 else "]")


def split_source(source: str) -> tuple[str, SourcePart]:
    """Gives a source without the brackets behind it, and what they say.

    `[:80%]` and `[80%:]` are all examples; `[::4]` is every fourth, of a file that is sorted by
    label as of any other; `[:80%:4]` is both.

    Raises:
        InputError: the part is empty.
    """
    found = _BRACKETS.search(source)
    if not found:
        return source, SourcePart()
    part = SourcePart(int(found[1] or 0), int(found[2] or 100), int(found[3] or 1))
    if not part.first < part.last <= 100 or part.step < 1:
        raise InputError(
            f"{source}: the part {found[0]} is empty; write such as [:80%], [80%:] or [::4]."
        )
    return source[: found.start()], part
