"""Reads pairs and triples of texts from JSONL, CSV and TSV files."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from llama_keras.data.files import Record, file_rows, find_file
from llama_keras.data.parts import split_source
from llama_keras.errors import InputError

COLUMNS = ("anchor", "positive", "negative")


@dataclass(frozen=True)
class PairData:
    """Texts that belong together, in file order.

    Attributes:
        rows: `(anchor, positive)` tuples, or `(anchor, positive, negative)`, all of one length.
        source: what was asked for, for messages and result files.
    """

    rows: list[tuple[str, ...]]
    source: str

    def __len__(self) -> int:
        return len(self.rows)

    def head(self, count: int) -> "PairData":
        """Gives the first `count` examples (all, when there are fewer)."""
        return PairData(self.rows[:count], self.source)

    def fingerprint(self) -> str:
        """Gives the SHA-256 of all texts in order: equal data, equal fingerprint."""
        digest = hashlib.sha256()
        for row in self.rows:
            digest.update(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
        return digest.hexdigest()


def load_pairs(source: str | Path, *, split: str | None = None) -> PairData:
    """Gives the pairs or triples of a data set.

    Args:
        source: a `.jsonl`, `.csv` or `.tsv` file with the columns `anchor`, `positive` and perhaps
            `negative`, with `.gz` after it or not; a folder that holds such files, one a split;
            `package:FILE` or `shared:FILE`, and parts such as `x.jsonl[::4]`, see
            `data.load_classification`.
        split: the split of a folder.

    Raises:
        InputError: the source is missing, empty or malformed, lacks a column, or has a negative in
            some lines only; the message names the line.
    """
    source, part = split_source(str(source))
    if source.startswith("tfds:"):
        raise InputError(f"{source}: pairs are read from files; write them as JSONL.")
    name = source if split is None else f"{source}/{split}"
    rows: list[tuple[str, ...]] = []
    for place, record in file_rows(find_file(source, split)):
        row = _row(record, f"{name}, {place}")
        if rows and len(row) != len(rows[0]):
            raise InputError(
                f"{name}, {place} has {len(row)} texts but the first line has {len(rows[0])}; give "
                "all lines a negative, or none."
            )
        rows.append(row)
    rows = part.of(rows)
    if not rows:
        raise InputError(f"{name} holds no examples; give a data set with at least one.")
    return PairData(rows, f"{name}{part}")


def _row(record: Record, place: str) -> tuple[str, ...]:
    has_negative = record.get(COLUMNS[2]) is not None
    texts = []
    for column in COLUMNS if has_negative else COLUMNS[:2]:
        value = record.get(column)
        if not isinstance(value, str) or not value.strip():
            raise InputError(
                f"{place}: {column} is missing or empty; it is {value!r}. Expected the columns "
                "anchor, positive and perhaps negative."
            )
        texts.append(value)
    return tuple(texts)
