"""Files and folders that appear under their name only when they are complete."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from llama_keras.errors import InputError


@contextlib.contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """A file to write that takes its final name only when the block ends well.

    Args:
        path: The final path; its folder exists. An earlier file of that name is replaced.

    Yields:
        A temporary file beside it, with the same suffix; after an exception it is gone and an
        earlier file is as it was.
    """
    final = Path(path)
    handle, name = tempfile.mkstemp(dir=final.parent, prefix=f".{final.stem}.", suffix=final.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _flush(temporary)
        temporary.chmod(0o644)  # mkstemp makes it private
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes a UTF-8 file all at once, in place of an earlier one."""
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def new_directory(directory: str | Path) -> Iterator[Path]:
    """A folder to write into that takes its final name only when the block ends well.

    Args:
        directory: The final path; it must not exist.

    Yields:
        A temporary folder beside it; after an exception nothing of it is left.

    Raises:
        InputError: Something of that name exists already, or its parent cannot be written.
    """
    final = Path(directory)
    _refuse_existing(final)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name}."))
    except OSError as error:
        raise InputError(f"'{final}' cannot be made ({error.strerror}). Choose another.") from error
    try:
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                _flush(path)
        temporary.chmod(0o755)  # mkdtemp makes it private
        _refuse_existing(final)  # rename would replace an empty folder made meanwhile
        temporary.rename(final)
        _flush(final.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _refuse_existing(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise InputError(
            f"'{path}' exists already and is not overwritten. Choose another name, or remove it."
        )


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
