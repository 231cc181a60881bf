"""How far two answers to one request are apart, key by key."""

import math
from typing import Any


class Differences:
    """Compares answers and remembers the largest differences.

    Texts, labels, places and lists must be equal; other numbers may differ by `tolerance` times the
    larger of 1 and their size.

    Args:
        tolerance: of numbers.

    Attributes:
        largest: the largest difference of the numbers under each key that both give.
        unshared: keys that one answer alone gives, and which (`a` or `b`): not compared.
    """

    def __init__(self, tolerance: float):
        self._tolerance = tolerance
        self.largest: dict[str, float] = {}
        self.unshared: dict[str, str] = {}

    def between(self, a: Any, b: Any) -> list[str]:
        """Gives the keys under which two answers differ, such as `entities[].start`."""
        found: list[str] = []
        self._walk(a, b, "", found)
        return list(dict.fromkeys(found))

    def _walk(self, a: Any, b: Any, key: str, found: list[str]) -> None:
        """Adds to `found` the keys under which two values differ."""
        if a is None or b is None:
            if a is not b:
                self.unshared[key] = "b" if a is None else "a"
        elif isinstance(a, dict) and isinstance(b, dict):
            for name in [*a, *(name for name in b if name not in a)]:
                self._walk(a.get(name), b.get(name), f"{key}.{name}" if key else name, found)
        elif isinstance(a, list) and isinstance(b, list):
            if len(a) != len(b):
                found.append(key)
            for x, y in zip(a, b, strict=False):
                self._walk(x, y, f"{key}[]", found)
        elif _is_number(a) and _is_number(b):
            difference = 0.0 if a == b else abs(a - b)
            # Not max(): a difference that is no number is the largest.
            if not difference <= self.largest.get(key, -1.0):
                self.largest[key] = float(difference)
            if not math.isfinite(difference) or difference > self._allowed(a, b):
                found.append(key)
        elif type(a) is not type(b) or a != b:
            found.append(key)

    def _allowed(self, a: Any, b: Any) -> float:
        if isinstance(a, int) and isinstance(b, int):
            return 0.0
        return self._tolerance * max(1.0, abs(a), abs(b))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
