"""Plain text for pretraining: one document a line, or the texts of a labelled set."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_keras.data.files import find_file, read_text
from llama_keras.data.sources import load_classification
from llama_keras.errors import InputError


@dataclass(frozen=True)
class Documents:
    """Texts in file order.

    Attributes:
        texts: none of them blank.
        blank: how many blank lines, or texts, were left out.
        source: what was asked for, for messages and result files.
    """

    texts: list[str]
    blank: int
    source: str

    def __len__(self) -> int:
        return len(self.texts)


def load_documents(
    sources: str | Path | Sequence[str | Path],
    *,
    text_column: str = "text",
    label_column: str = "label",
    limit: int | None = None,
) -> Documents:
    """Returns the documents of one source or of several, one after the other.

    Args:
        sources: `.txt` files (UTF-8, one document a line), each with `.gz` after it or not; or
            sources of `load_classification`, whose labels are not used. `package:FILE` and
            `shared:FILE` are understood as there, `tfds:NAME/SPLIT` too.
        text_column: Of labelled sets.
        label_column: Of labelled sets.
        limit: Take the first documents of each source only.

    Raises:
        InputError: A source is missing, not UTF-8 or malformed, or all lines are blank.
    """
    several = [sources] if isinstance(sources, str | Path) else list(sources)
    texts: list[str] = []
    blank = 0
    for source in several:
        lines = document_lines(source, text_column=text_column, label_column=label_column)
        found = [line.strip() for line in lines if line.strip()]
        blank += len(lines) - len(found)
        texts += found[:limit]
    if not texts:
        raise InputError(f"{', '.join(map(str, several)) or 'The list of sources'} holds no text.")
    return Documents(texts, blank, ", ".join(map(str, several)))


def document_lines(source: str | Path, *, text_column: str, label_column: str) -> list[str]:
    """Returns the lines of a text file, or the texts of a labelled set, blank ones too.

    Args, Raises: see `load_documents`.
    """
    source, split = str(source), None
    if is_text_file(source):
        lines = read_text(find_file(source, None)).split("\n")
        return lines if lines[-1] else lines[:-1]  # the last line has an end, too
    if source.startswith("tfds:"):
        source, _, split = source.rpartition("/")
    return load_classification(
        source, split=split, text_column=text_column, label_column=label_column
    ).texts


def is_text_file(source: str) -> bool:
    """Says whether a source is plain text, one document a line."""
    return source.endswith((".txt", ".txt.gz"))
