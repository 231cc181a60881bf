"""Where data files are, and what stands in them: JSONL, CSV and TSV, gzipped or not."""

import csv
import gzip
import io
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from llama_keras.errors import InputError

Record = dict[str, object]
# A row and where it stands ("line 7"), for messages.
Rows = Iterator[tuple[str, Record]]


def shared_folder() -> Path:
    """Returns the folder of data sets that lie outside the repository.

    That is what the environment variable LLAMA_KERAS_SHARED names, else `shared` beside the
    repository; it need not exist.
    """
    beside = Path(__file__).resolve().parents[3] / "shared"
    return Path(os.environ.get("LLAMA_KERAS_SHARED", beside)).expanduser()


# Schemes of sources that stand for a folder.
_FOLDERS: dict[str, Callable[[], Path]] = {
    "package": lambda: Path(__file__).parent,
    "shared": shared_folder,
}


def tfds_folders(data_dir: str | Path | None) -> list[Path | None]:
    """Gives the folders to look for `tfds:` sets in; None stands for tfds's own."""
    if data_dir is not None:
        return [Path(data_dir).expanduser()]
    # Ours may be read-only, so what it lacks is downloaded there.
    return [None] if "TFDS_DATA_DIR" in os.environ else [shared_folder() / "tfds", None]


def find_file(source: str | Path, split: str | None, *, suffixes: Sequence[str] = ()) -> Path:
    """Gives the file that a source names.

    Args:
        source: a file, a folder of files, one a split, or such behind `package:` or `shared:`.
        split: of a folder.
        suffixes: of the files that a folder may hold, each with `.gz` after it or not; by default
            those of `READERS`.

    Raises:
        InputError: there is no such file, or a split is given for a file.
    """
    scheme, colon, rest = str(source).partition(":")
    known = colon and scheme in _FOLDERS
    path = _FOLDERS[scheme]() / rest if known else Path(source).expanduser()
    if path.is_dir():
        names = [f"{split}{suffix}{gz}" for suffix in suffixes or READERS for gz in ("", ".gz")]
        found = [path / name for name in names if (path / name).is_file()]
        if found:
            return found[0]
        there = sorted(p.name for p in path.iterdir() if p.is_file())
        raise InputError(
            f"The folder {path} has no split {split!r}; it holds {there}. Name one of its splits, "
            "or give a file."
        )
    if not path.is_file():
        hint = " Set LLAMA_KERAS_SHARED to the folder that holds it." if scheme == "shared" else ""
        raise InputError(f"There is no data file {path}; check the path.{hint}")
    if split is not None:
        raise InputError(
            f"split={split!r} is for tfds: sets and for folders, but {path} is one file; "
            "leave the split out, or give the folder."
        )
    return path


def suffix_of(file: Path, *, known: Iterable[str]) -> str:
    """Gives what a file's name ends in but for `.gz`; raises `InputError` where it is not known."""
    suffix = Path(file.stem).suffix if file.suffix == ".gz" else file.suffix
    if suffix not in known:
        raise InputError(
            f"{file} is of no known kind; expected a name that ends in one of {list(known)}, with "
            ".gz after it or not."
        )
    return suffix


def read_text(file: Path) -> str:
    """Gives what stands in a UTF-8 file, gzipped or not.

    Raises:
        InputError: it is damaged, or not UTF-8.
    """
    content = file.read_bytes()
    if file.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{file} is not a whole gzip file ({error}); fetch it anew.") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The decoder counts from behind a byte order mark that it took off.
        at = error.start + (3 if content.startswith(b"\xef\xbb\xbf") else 0)
        line = content.count(b"\n", 0, at) + 1
        raise InputError(
            f"{file} is not UTF-8: byte 0x{content[at]:02x} at position {at} (line {line}); "
            "convert it to UTF-8."
        ) from None


def jsonl_rows(text: str, file: Path) -> Rows:
    """Gives the objects of JSON lines; raises `InputError` at the first line that is none."""
    # Not splitlines(): that also breaks at U+2028 and the like, which JSON strings may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{file}, line {number} is not JSON: {error}.") from None
        if not isinstance(row, dict):
            raise InputError(
                f"{file}, line {number} is not a JSON object but {type(row).__name__}; "
                'expected lines such as {"text": "...", "label": "..."}.'
            )
        yield f"line {number}", row


def _delimited_rows(text: str, file: Path, *, dialect: str) -> Rows:
    reader = csv.DictReader(io.StringIO(text, newline=""), dialect=dialect, strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                count = len(reader.fieldnames or [])
                raise InputError(
                    f"{file}, line {reader.line_num} does not have the {count} fields of the "
                    "header; quote texts that hold the separator."
                )
            yield f"line {reader.line_num}", dict(row)
    except csv.Error as error:
        raise InputError(f"{file}, line {reader.line_num} is malformed: {error}.") from None


def _csv_rows(text: str, file: Path) -> Rows:
    return _delimited_rows(text, file, dialect="excel")


def _tsv_rows(text: str, file: Path) -> Rows:
    return _delimited_rows(text, file, dialect="excel-tab")


READERS: dict[str, Callable[[str, Path], Rows]] = {
    ".jsonl": jsonl_rows,
    ".csv": _csv_rows,
    ".tsv": _tsv_rows,
}


def file_rows(file: Path) -> Rows:
    """Gives the rows of a JSONL, CSV or TSV file, as its name says."""
    reader = READERS[suffix_of(file, known=READERS)]
    return reader(read_text(file), file)
