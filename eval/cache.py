"""Answers kept from earlier evaluations: one SQLite file, by target and request."""

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from llama_keras.errors import InputError
from llama_keras.eval.requests import Answer, Request

_SCHEMA = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)"


class AnswerCache:
    """Answers of one target.

    The key is the SHA-256 of the target's fingerprint, the kind and the request, so other weights
    or another prompt never meet an old answer.

    Args:
        file: the SQLite file; made where it is not there. Several processes may share it.
        fingerprint: the target's.

    Raises:
        InputError: the file is no such cache.
    """

    def __init__(self, file: str | Path, *, fingerprint: str):
        self._fingerprint = fingerprint
        path = Path(file).expanduser()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=60)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise InputError(
                f"{path} cannot be used as a cache of answers ({error}); name another file."
            ) from None

    def find(self, kind: str, requests: Sequence[Request]) -> list[Answer | None]:
        """Gives the answer to each request, None where it is not known."""
        found = []
        for request in requests:
            query = "SELECT answer FROM answers WHERE key = ?"
            row = self._database.execute(query, (self._key(kind, request),)).fetchone()
            found.append(None if row is None else json.loads(row[0]))
        return found

    def keep(self, kind: str, requests: Sequence[Request], answers: Sequence[Answer]) -> None:
        """Keeps answers; they are on disk when this returns."""
        rows = [
            (self._key(kind, request), json.dumps(answer))
            for request, answer in zip(requests, answers, strict=True)
        ]
        with self._database:
            self._database.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    def _key(self, kind: str, request: Request) -> str:
        text = json.dumps([self._fingerprint, kind, request], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
