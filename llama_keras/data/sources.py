"""Reads labelled texts from files and from TensorFlow Datasets, refusing what is not clean."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_keras.data.files import Record, file_rows, find_file, tfds_folders
from llama_keras.data.parts import split_source
from llama_keras.errors import InputError

# Stands between the labels of a text in CSV and TSV files.
LABEL_SEPARATOR = "|"


@dataclass(frozen=True)
class ClassificationData:
    """Texts and their labels, in file order.

    Attributes:
        texts: The texts as they stand in the source; tuples of two where pairs were asked for.
        labels: One label a text, or a list of labels where several were asked for; labels that
            are numbers in the source are their digits.
        source: What was asked for, for messages and result files.
    """

    texts: list[Any]
    labels: list[Any]
    source: str

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def label_names(self) -> list[str]:
        """The distinct labels, sorted."""
        rows = [label if isinstance(label, list) else [label] for label in self.labels]
        return sorted({label for row in rows for label in row})

    def head(self, count: int) -> "ClassificationData":
        """Returns the first `count` examples (all, when there are fewer)."""
        return ClassificationData(self.texts[:count], self.labels[:count], self.source)

    def fingerprint(self) -> str:
        """Returns the SHA-256 of texts and labels in order: equal data, equal fingerprint."""
        digest = hashlib.sha256()
        for pair in zip(self.texts, self.labels, strict=True):
            digest.update(json.dumps(pair, ensure_ascii=False).encode() + b"\n")
        return digest.hexdigest()


def load_classification(
    source: str | Path,
    *,
    split: str | None = None,
    text_column: str | Sequence[str] = "text",
    label_column: str = "label",
    names_column: str | None = None,
    pairs: bool = False,
    multi_label: bool = False,
    data_dir: str | Path | None = None,
) -> ClassificationData:
    """Returns the texts and labels of a data set.

    Args:
        source: A `.jsonl`, `.csv` (with a header line) or `.tsv` file, each with `.gz` after it
            or not; a folder that holds such files, one a split; `tfds:NAME` for a set of
            TensorFlow Datasets (`tfds:glue/sst2`); `package:FILE` for a file shipped in
            `llama_keras/data`; `shared:FILE` for one under `shared_folder()`. `[A%:B%]` behind a
            file takes a part of it, as tfds does: `x.jsonl[:80%]` and `x.jsonl[80%:]` are all;
            `x.jsonl[::4]` is every fourth example, `x.jsonl[:80%:4]` both.
        split: The split of a `tfds:` set or of a folder (`train` finds `train.jsonl`).
        text_column: The name of the column or key that holds the text; of several, the texts
            are joined by line breaks.
        label_column: The name of the column or key that holds the label.
        names_column: The name of a key that holds the list of names that a label which is a number
            counts in, from 0 (`choices` of a multiple-choice set).
        pairs: Whether `text_column` names the two columns of a pair, which are not joined.
        multi_label: Whether a text has a list of labels, possibly empty: a list in JSON, or names
            with `|` between them (`sport|politics`).
        data_dir: Where `tfds:` sets are prepared; by default what the environment variable
            TFDS_DATA_DIR says, else `shared_folder()/tfds` where that exists, else tfds's own.

    Raises:
        InputError: The source is missing, empty, not UTF-8, malformed or lacks a column.
    """
    columns = [text_column] if isinstance(text_column, str) else list(text_column)
    if pairs and len(columns) != 2:
        raise InputError(
            f"A pair needs two text columns, such as [question, passage]; received {text_column!r}."
        )
    source, part = split_source(str(source))
    scheme, colon, name = str(source).partition(":")
    if colon and scheme == "tfds":
        from llama_keras.data.tfds_rows import tfds_rows

        rows = tfds_rows(name, split, [*columns, label_column], tfds_folders(data_dir))
    else:
        rows = file_rows(find_file(source, split))
    to_label = _label_list if multi_label else _label
    texts, labels = [], []
    for place, row in rows:
        place = f"{source}, {place}"
        parts = [_text(row, column, place) for column in columns]
        texts.append(tuple(parts) if pairs else "\n".join(parts))
        if names_column is not None:
            row = {**row, label_column: _name(row, label_column, names_column, place)}
        labels.append(to_label(row, label_column, place))
    texts, labels = part.of(texts), part.of(labels)
    if not texts:
        raise InputError(f"{source} holds no examples; give a data set with at least one.")
    name = source if split is None else f"{source}/{split}"
    return ClassificationData(texts, labels, f"{name}{part}")


def _column(row: Record, column: str, place: str) -> object:
    if column not in row:
        raise InputError(
            f"{place}: there is no column {column!r}; the columns are {list(row)}. "
            "Name the right one with text_column or label_column."
        )
    return row[column]


def _text(row: Record, column: str, place: str) -> str:
    value = _column(row, column, place)
    if not isinstance(value, str):
        raise InputError(f"{place}: column {column!r} is not a text but {value!r}.")
    return value


def _label(row: Record, column: str, place: str) -> str:
    value = _column(row, column, place)
    if value is None or value == "":
        raise InputError(f"{place}: there is no label in column {column!r}; use a labelled split.")
    if not isinstance(value, str | int):
        raise InputError(f"{place}: column {column!r} is not a label but {value!r}.")
    return str(value)


def _label_list(row: Record, column: str, place: str) -> list[str]:
    value = _column(row, column, place)
    if isinstance(value, str):
        value = [name.strip() for name in value.split(LABEL_SEPARATOR)] if value.strip() else []
    if not isinstance(value, list):
        raise InputError(
            f"{place}: column {column!r} is {value!r}; expected a list of labels, or names with "
            f"{LABEL_SEPARATOR} between them."
        )
    return list(dict.fromkeys(_label({column: item}, column, place) for item in value))


def _name(row: Record, column: str, names_column: str, place: str) -> object:
    number, names = _column(row, column, place), _column(row, names_column, place)
    if (
        not isinstance(names, list)
        or not isinstance(number, int)
        or isinstance(number, bool)
        or not 0 <= number < len(names)
    ):
        raise InputError(
            f"{place}: column {column!r} is {number!r}; expected the number of one of the names in "
            f"{names_column!r}, which is {names!r}."
        )
    return names[number]
