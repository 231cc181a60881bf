"""Targets: what an evaluation can measure, all answering `classify(texts)` alike."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypedDict

from llama_keras.errors import InputError


class Answer(TypedDict):
    """A classifier's answer to one text: the label and its probability."""

    label: str
    score: float


class Target(Protocol):
    """What the harness needs of a model."""

    kind: str
    """`keras`, `saved_model` or `rest`."""
    location: str
    """The path or URL."""
    labels: list[str] | None
    """The labels that it can answer; None where it does not tell."""

    def classify(self, texts: Sequence[str]) -> list[Answer]:
        """Returns one answer a text, in order."""
        ...

    def fingerprint(self) -> str | None:
        """Returns the SHA-256 of its files, or None for a server."""
        ...


class KerasTarget:
    """A task saved as a `.keras` file."""

    kind = "keras"

    def __init__(self, file: str | Path):
        from llama_keras.tasks import TextClassifier

        self.location = str(file)
        self._file = Path(file)
        self._model = TextClassifier.load(file)
        self.labels: list[str] | None = list(self._model.labels)

    def classify(self, texts: Sequence[str]) -> list[Answer]:
        """Returns one answer a text, in order."""
        rows = self._model.predict(list(texts), batch_size=len(texts), verbose=0)
        return [_answer(row, self.location) for row in rows]

    def fingerprint(self) -> str:
        """Returns the SHA-256 of the file."""
        return _sha256([self._file])


class SavedModelTarget:
    """An exported SavedModel, loaded by TensorFlow and TF-Text alone."""

    kind = "saved_model"

    def __init__(self, directory: str | Path):
        from llama_keras.serving.local import SavedModel
        from llama_keras.serving.manifest import read_manifest

        self._model = SavedModel(directory)
        self._folder = self._model.folder.path
        self.location = str(self._folder)
        self.labels: list[str] | None = list(read_manifest(self._folder).labels) or None

    def classify(self, texts: Sequence[str]) -> list[Answer]:
        """Returns one answer a text, in order."""
        rows = self._model.predict(list(texts), batch_size=len(texts))
        return [_answer(row, self.location) for row in rows]

    def fingerprint(self) -> str:
        """Returns the SHA-256 of the graph and the weights."""
        weights = sorted(self._folder.glob("variables/*"))
        return _sha256([self._folder / "saved_model.pb", *weights])


class RestTarget:
    """A model behind TF Serving's REST, ours or the real one."""

    kind = "rest"
    labels: list[str] | None = None

    def __init__(self, url: str):
        self.location = url

    def classify(self, texts: Sequence[str]) -> list[Answer]:
        """Returns one answer a text, in order."""
        from llama_keras.serving.client import predict

        rows = predict(self.location, list(texts), batch_size=len(texts))
        return [_answer(row, self.location) for row in rows]

    def fingerprint(self) -> None:
        """Returns None: a server does not show its files."""
        return None


def open_target(model: str | Path) -> Target:
    """Returns the target for a run directory, `.keras` file, SavedModel folder or URL.

    Raises:
        InputError: There is nothing of these at `model`.
    """
    if str(model).startswith(("http://", "https://")):
        return RestTarget(str(model))
    path = Path(model).expanduser()
    if not path.exists():
        raise InputError(
            f"There is no model at {path}; give a run directory, a .keras file, the folder of an "
            "export, or the URL of a server."
        )
    file = path / "model.keras" if path.is_dir() else path
    # A folder without a Keras file is an export; SavedModel says what it misses.
    return KerasTarget(file) if file.is_file() else SavedModelTarget(path)


def _answer(row: Mapping[str, Any], location: str) -> Answer:
    if not {"label", "score"} <= row.keys():
        raise InputError(
            f"{location} is no text classifier: it answers {sorted(row)}, not label and score."
        )
    return {"label": row["label"], "score": float(row["score"])}


def _sha256(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
