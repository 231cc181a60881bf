"""An exported SavedModel, loaded by TensorFlow and TF-Text alone."""

from collections.abc import Sequence
from pathlib import Path

from llama_keras.errors import InputError
from llama_keras.eval.precision import graph_precision
from llama_keras.eval.record import digest
from llama_keras.eval.requests import Answer, Request
from llama_keras.eval.targets.fingerprints import file_fingerprint
from llama_keras.eval.targets.signatures import (
    answers_of,
    columns_of,
    refusal,
    requests_of,
    signature_of,
)


class SavedModelTarget:
    """The newest version in a folder, or the version itself."""

    kind = "saved_model"

    def __init__(self, directory: str | Path):
        from llama_keras.serving.local import SavedModel
        from llama_keras.serving.manifest import read_manifest

        self._model = SavedModel(directory)
        self._folder = self._model.folder.path
        self.location = str(self._folder)
        manifest = read_manifest(self._folder)
        self.labels: list[str] | None = list(manifest.labels) or None
        self.requests = requests_of(self._model.signatures)
        self.precision: str | None = graph_precision(self._folder)

    def ask(self, kind: str, requests: Sequence[Request], *, batch_size: int = 32) -> list[Answer]:
        """Gives one answer a request, in order; see `requests.Target`."""
        signature = signature_of(kind, self._model.signatures)
        inputs = list(self._model.signatures[signature].inputs)
        answers: list[Answer] = []
        for start in range(0, len(requests), batch_size):
            part = requests[start : start + batch_size]
            columns = columns_of(kind, part, inputs=inputs, location=self.location)
            try:
                outputs = self._model.run(signature, **columns)
            except Exception as error:
                if getattr(error, "error_code", None) is None:  # not the graph's
                    raise
                reason = str(getattr(error, "message", error))
                raise InputError(f"{self.location}: {refusal(kind, reason)}") from None
            answers += answers_of(kind, outputs, len(part), self.labels, self.location)
        return answers

    def fingerprint(self) -> str:
        """Gives the SHA-256 of the graph, the weights, the vocabularies and the labels."""
        parts = [self._folder / "saved_model.pb"]
        parts += sorted(self._folder.glob("variables/*")) + sorted(self._folder.glob("assets/*"))
        files = file_fingerprint([file for file in parts if file.is_file()])
        # Nothing else of the manifest shapes an answer, and to be measured changes no export.
        return digest([files, self.labels])

    def first_tokens(self, kind: str, request: Request) -> None:
        """Gives None: the tokens stay in the graph."""
        return None
