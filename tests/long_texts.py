"""A long text, and a backbone that is quick enough to read it."""

from typing import Any

MILLION = 1_000_000
TINY: dict[str, Any] = {
    "num_layers": 1,
    "hidden_dim": 16,
    "num_query_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_dim": 16,
}


def book(size: int) -> str:
    """Gives `size` characters: names and words, few of them and long, and some Chinese."""
    parts, length, number = [], 0, 0
    while length < size:
        parts.append(f"Ada{number} " + "naïvely-" * 4 + "x" * 60 + " 今天 🙂 ")
        length, number = length + len(parts[-1]), number + 1
    return "".join(parts)[:size]
