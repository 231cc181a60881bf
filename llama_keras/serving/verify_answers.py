"""Compare an answer of an export with the response that its manifest records."""

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any


class Unlike(Exception):
    """Two answers differ in more than numbers; the message says where."""


def columns_of(response: Mapping[str, Any], *, outputs: Sequence[str]) -> dict[str, list[Any]]:
    """Gives a recorded response, `{"predictions": [row, ...]}`, as one list an output.

    Raises:
        Unlike: it has another form, or other outputs.
    """
    rows = response.get("predictions")
    if not isinstance(rows, list) or not rows:
        raise Unlike("the response is not {'predictions': [...]}")
    if len(outputs) == 1 and not isinstance(rows[0], dict):  # as REST writes a single output
        rows = [{outputs[0]: row} for row in rows]
    for row in rows:
        if not isinstance(row, dict) or row.keys() != set(outputs):
            had = sorted(row) if isinstance(row, dict) else row
            raise Unlike(f"the response has {had}; the signature gives {sorted(outputs)}")
    return {name: [row[name] for row in rows] for name in outputs}


def difference(recorded: Any, found: Any, *, place: str = "") -> float:
    """Gives the largest difference of two numbers at the same place, relative above 1.

    Raises:
        Unlike: other names, lengths, strings or kinds of values.
    """
    recorded, found = _plain(recorded), _plain(found)
    if _number(recorded) and _number(found):
        return _distance(float(recorded), float(found))
    where = place or "the answer"
    if isinstance(recorded, dict) and isinstance(found, dict):
        if recorded.keys() != found.keys():
            raise Unlike(f"{where} has {sorted(found)} where {sorted(recorded)} was recorded")
        parts = [
            (recorded[key], found[key], f"{place}.{key}" if place else key) for key in recorded
        ]
    elif isinstance(recorded, list) and isinstance(found, list):
        if len(recorded) != len(found):
            raise Unlike(f"{where} has {len(found)} values where {len(recorded)} were recorded")
        pairs = enumerate(zip(recorded, found, strict=True))
        parts = [(one, other, f"{place}[{index}]") for index, (one, other) in pairs]
    elif type(recorded) is type(found) and recorded == found:
        return 0.0
    else:
        raise Unlike(f"{where} is {_short(found)} where {_short(recorded)} was recorded")
    return max((difference(a, b, place=at) for a, b, at in parts), default=0.0)


def as_text(value: Any) -> Any:
    """Gives nested lists with each `bytes` as a string."""
    if isinstance(value, list):
        return [as_text(item) for item in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _plain(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"b64"}:
        return base64.b64decode(value["b64"]).decode("utf-8", "replace")
    return value


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _distance(recorded: float, found: float) -> float:
    if recorded == found or (math.isnan(recorded) and math.isnan(found)):
        return 0.0
    distance = abs(recorded - found) / max(1.0, abs(recorded))
    return distance if math.isfinite(distance) else math.inf


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
