"""A LiteRT decoding step that keeps its cache between calls; needs NumPy alone.

The file's inputs are told in `models.litert`. Inputs keep their memory from call to call, so that
only the new slot is written: a cache that goes in anew costs as much as the step itself.

Axes: L layers, K key-value heads, S cache length, D head size, V vocabulary, E model width.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError

_CACHE = re.compile(r"(key|value)_(\d+)")
_SCALARS = re.compile(r"hidden|token_ids|index|padding")
_NAMES = {"hidden": "token", "token_ids": "token"}


class LiteRTStep:
    """Runs the main function of a file, a decoding step.

    Args:
        interpreter: of `ai-edge-litert`.
        path: the file, for errors.

    Raises:
        InputError: the function is no decoding step.
    """

    def __init__(self, interpreter, path: Path):
        self._interpreter = interpreter
        self._places = _find_places(interpreter, path)
        self._slots = 0

    def fill(self, entries: np.ndarray) -> None:
        """Has the next calls see this cache, float32 `(2 L, K, S, D)`: key 0, value 0, key 1, …"""
        if entries.shape[2] != self._slots:
            self._resize(entries.shape[2])
        for place, values in zip(self._places.cache, entries, strict=True):
            self._interpreter.tensor(place)()[0] = values

    def advance(
        self, token: np.ndarray, *, index: int, padding: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Runs one step and keeps its key and value in slot `index`.

        Args:
            token: a token id int32 `()`, or its vector float32 `(E,)`, as the file takes it.
            index: the slot.
            padding: how many slots at the start hold nothing.

        Returns:
            The logits `(1, V)`, and the new keys and values `(2 L, K, D)`.
        """
        run, places = self._interpreter, self._places
        run.set_tensor(places.token, token[None, None])
        run.set_tensor(places.index, np.int32(index))
        run.set_tensor(places.padding, np.int32(padding))
        run.invoke()
        rows = run.get_tensor(places.rows)
        for place, values in zip(places.cache, rows, strict=True):
            run.tensor(place)()[0, :, index] = values
        return run.get_tensor(places.logits), rows

    def _resize(self, slots: int) -> None:
        self._slots = 0
        for place, shape in zip(self._places.cache, self._places.cache_shapes, strict=True):
            self._interpreter.resize_tensor_input(place, [1, shape[1], slots, shape[3]])
        self._interpreter.allocate_tensors()
        self._slots = slots


@dataclass(frozen=True)
class _Places:
    """Where the interpreter keeps each input and output."""

    token: int
    index: int
    padding: int
    cache: list[int]  # key 0, value 0, key 1, …
    cache_shapes: list[tuple[int, ...]]
    logits: int
    rows: int


def _find_places(interpreter, path: Path) -> _Places:
    named, cache = {}, []
    for detail in interpreter.get_input_details():
        if found := _CACHE.search(detail["name"]):
            cache.append((int(found[2]), found[1], detail["index"], tuple(detail["shape"])))
        elif found := _SCALARS.search(detail["name"]):
            named[_NAMES.get(found[0], found[0])] = detail["index"]
    cache.sort()
    by_rank = {len(detail["shape"]): detail["index"] for detail in interpreter.get_output_details()}
    if len(named) != 3 or not cache or sorted(by_rank) != [2, 3]:
        raise InputError(f"'{path}' is a LiteRT file, but no decoding step. Remove or replace it.")
    return _Places(
        **named,
        cache=[place for *_, place, _ in cache],
        cache_shapes=[shape for *_, shape in cache],
        logits=by_rank[2],
        rows=by_rank[3],
    )
