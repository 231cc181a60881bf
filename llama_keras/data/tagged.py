"""Reads texts whose entities are marked: CoNLL columns, JSONL with spans, sets of TFDS."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_keras.data.files import find_file, jsonl_rows, read_text, suffix_of, tfds_folders
from llama_keras.data.parts import split_source
from llama_keras.errors import InputError

# Columns of words and tags, or JSON lines.
SUFFIXES = (".conll", ".iob", ".iob2", ".bio", ".txt", ".jsonl")
# Marks the documents of CoNLL-2003; no sentence.
DOCUMENT_MARK = "-DOCSTART-"


@dataclass(frozen=True)
class TaggedData:
    """Sentences and their entities, in file order.

    Attributes:
        inputs: lists of words, or whole texts.
        targets: for lists of words as many tags each, for texts lists of spans
            `{"start", "end", "label"}` in characters.
        places: where each stands in the source, such as `"line 7"`, for messages.
        source: what was asked for.
    """

    inputs: list[Any]
    targets: list[Any]
    places: list[str]
    source: str

    def __len__(self) -> int:
        return len(self.inputs)

    def head(self, count: int) -> "TaggedData":
        """Gives the first `count` sentences (all, when there are fewer)."""
        return TaggedData(
            self.inputs[:count], self.targets[:count], self.places[:count], self.source
        )


def load_tagged(
    source: str | Path,
    *,
    split: str | None = None,
    text_column: str = "text",
    spans_column: str = "spans",
    data_dir: str | Path | None = None,
) -> TaggedData:
    """Gives the sentences of a data set.

    Args:
        source: a `.conll` file (also .iob, .iob2, .bio, .txt: a line is a token, blanks or one tab,
            further columns, and in the last column the tag; an empty line ends a sentence), or
            `.jsonl` (`{"text": …, "spans": [{"start": 0, "end": 4, "label": "PER"}]}`, characters
            are Unicode code points), each with `.gz` after it or not; a folder of such files;
            `tfds:`, `package:` or `shared:` names, and parts such as `x.conll[::4]`, see
            `load_classification`.
        split: the split of a `tfds:` set or of a folder.
        text_column: JSONL's key of the text; a `tfds:` set's feature with the words.
        spans_column: JSONL's key of the spans; a `tfds:` set's feature with the tags.
        data_dir: where `tfds:` sets are prepared.

    Raises:
        InputError: the source is missing, empty or malformed; the message names the line.
    """
    source, part = split_source(str(source))
    scheme, colon, name = source.partition(":")
    if colon and scheme == "tfds":
        from llama_keras.data.tfds_rows import tfds_rows

        rows = tfds_rows(name, split, [text_column, spans_column], tfds_folders(data_dir))
        found = [_record(row, text_column, spans_column, f"{source}, {at}") for at, row in rows]
    else:
        file = find_file(source, split, suffixes=SUFFIXES)
        suffix, text = suffix_of(file, known=SUFFIXES), read_text(file)
        if suffix == ".jsonl":
            rows = jsonl_rows(text, file)
            found = [_record(row, text_column, spans_column, f"{file}, {at}") for at, row in rows]
        else:
            found = list(_conll_sentences(text, file))
    found = part.of(found)
    if not found:
        raise InputError(f"{source} holds no sentences; give a data set with at least one.")
    inputs, targets, places = (list(column) for column in zip(*found, strict=True))
    name = source if split is None else f"{source}/{split}"
    return TaggedData(inputs, targets, places, f"{name}{part}")


def _conll_sentences(text: str, file: Path) -> Iterator[tuple[list[str], list[str], str]]:
    words: list[str] = []
    tags: list[str] = []
    first = columns = 0
    # Not splitlines(): a token may hold U+2028 and the like.
    for number, line in enumerate([*text.split("\n"), ""], start=1):
        line = line.removesuffix("\r")
        if not line.strip(" \t"):
            if words:
                yield words, tags, f"line {first}"
            words, tags = [], []
            continue
        # One tab parts columns, so that a token may be a blank; else runs of blanks do.
        cells = line.split("\t") if "\t" in line else line.split(" ")
        cells = [cell for cell in cells if cell] if "\t" not in line else cells
        if cells[0] == DOCUMENT_MARK:
            continue
        columns = columns or len(cells)
        if len(cells) < 2 or len(cells) != columns or not cells[0] or not cells[-1]:
            raise InputError(
                f"{file}, line {number} is {line!r}; expected a token and its tag, parted by a tab "
                f"or blanks, {max(columns, 2)} columns as in the lines before."
            )
        first = number if not words else first
        words.append(cells[0])
        tags.append(cells[-1].strip())


def _record(row: dict, text_column: str, spans_column: str, place: str):
    for column in (text_column, spans_column):
        if column not in row:
            raise InputError(
                f"{place}: there is no column {column!r}; the columns are {list(row)}. Name the "
                "right one with text_column or label_column."
            )
    text, spans = row[text_column], row[spans_column]
    if not isinstance(text, (str, list)) or not isinstance(spans, list):
        raise InputError(
            f"{place}: expected a text and a list of spans, or a list of words and one of tags; "
            f"received {text!r:.60} and {spans!r:.60}."
        )
    return text, spans, place.rpartition(", ")[2] if isinstance(text, str) else place
