"""The folder that an evaluation leaves, and goes on from when it was interrupted.

plan.json                 what was asked; another plan is refused
samples_SUITE.part.jsonl  examples as they were answered, until all are there
samples_SUITE.jsonl       all examples in order
results_SUITE.json        `results.Result`
results.json              all suites together
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llama_keras.atomic import new_file, write_text
from llama_keras.errors import InputError
from llama_keras.eval.results import Result

PLAN_FILE = "plan.json"
RESULTS_FILE = "results.json"
Sample = dict[str, Any]
"""One answered example: `doc_id`, `doc`, `arguments`, `resps`, and what was made of them."""


def digest(value: Any) -> str:
    """Gives the SHA-256 of a value's JSON."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Record:
    """The folder of one evaluation.

    Args:
        folder: a new one, an empty one, or one that an evaluation with the same plan began.
        plan: what is asked: suites, data, target, limit, seed. Plain values.

    Raises:
        InputError: the folder holds something else, or an evaluation of another plan.
    """

    def __init__(self, folder: str | Path, plan: dict[str, Any]):
        self.folder = Path(folder)
        file = self.folder / PLAN_FILE
        if not file.exists():
            if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
                raise InputError(
                    f"{self.folder} exists already and holds no evaluation; name another folder."
                )
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"{self.folder} cannot be made ({error.strerror}).") from None
            write_text(file, json.dumps(plan, indent=2, ensure_ascii=False) + "\n")
            return
        earlier = read_json(file)
        if differing := [key for key in plan if earlier.get(key) != plan[key]]:
            key = differing[0]
            raise InputError(
                f"{self.folder} holds an evaluation of another {key} ({_short(earlier.get(key))}, "
                f"not {_short(plan[key])}); name another folder to begin anew."
            )

    def finished(self, suite: str) -> Result | None:
        """Gives the result of a suite that was finished, else None."""
        file = self.folder / f"results_{suite}.json"
        if not file.is_file():
            return None
        try:
            return Result.from_dict(read_json(file))
        except (KeyError, TypeError) as error:
            raise InputError(
                f"{file} was not written by this version of the harness ({error}); name another "
                "folder."
            ) from None

    def begin(self, suite: str) -> "Samples":
        """Gives the suite's samples: those that are there, and a place for more."""
        return Samples(self.folder / f"samples_{suite}.part.jsonl")

    def finish(self, result: Result, samples: Iterable[Sample]) -> None:
        """Writes a suite's result and all its samples in order."""
        with new_file(self.folder / f"samples_{result.suite}.jsonl") as file:
            with file.open("w", encoding="utf-8") as stream:
                for sample in sorted(samples, key=lambda sample: sample["doc_id"]):
                    stream.write(_line(sample))
        write_text(
            self.folder / f"results_{result.suite}.json",
            json.dumps(result.to_dict(), indent=2, ensure_ascii=False) + "\n",
        )
        (self.folder / f"samples_{result.suite}.part.jsonl").unlink(missing_ok=True)

    def close(self, merged: dict[str, Any]) -> None:
        """Writes what all suites together found."""
        text = json.dumps(merged, indent=2, ensure_ascii=False) + "\n"
        write_text(self.folder / RESULTS_FILE, text)


class Samples:
    """Samples of one suite, on disk as they come; without a file only in memory.

    Attributes:
        done: by `doc_id`.
        resumed: how many an earlier run had left.
    """

    def __init__(self, file: Path | None = None):
        self._file = file
        self.done: dict[int, Sample] = {}
        if file is not None and file.exists():
            kept = file.read_bytes()
            # A run that was killed while it wrote leaves half a line, which is asked again.
            whole = kept[: kept.rfind(b"\n") + 1]
            if whole != kept:
                with file.open("r+b") as stream:
                    stream.truncate(len(whole))
            for line in whole.decode("utf-8").split("\n"):
                if line:
                    sample = json.loads(line)
                    self.done[sample["doc_id"]] = sample
        self.resumed = len(self.done)

    def add(self, samples: list[Sample]) -> None:
        """Appends samples; they have left this process when this returns."""
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write("".join(map(_line, samples)))
        self.done |= {sample["doc_id"]: sample for sample in samples}


def _line(sample: Sample) -> str:
    text = json.dumps(sample, ensure_ascii=False)
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        text = json.dumps(sample)  # half a surrogate pair cannot be written as it is
    return text + "\n"


def read_json(file: Path) -> dict[str, Any]:
    """Gives the object in a JSON file; raises `InputError` where there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as JSON ({error}).") from None
    if not isinstance(content, dict):
        raise InputError(f"{file} should hold a JSON object.")
    return content


def read_samples(file: Path) -> list[Sample]:
    """Gives the samples of a finished suite; raises `InputError` where a line is damaged."""
    from llama_keras.data.files import jsonl_rows, read_text

    if not file.is_file():
        raise InputError(f"There are no samples at {file}; is the evaluation finished?")
    return [row for _, row in jsonl_rows(read_text(file), file)]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
