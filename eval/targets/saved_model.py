"""An exported SavedModel, loaded by TensorFlow and TF-Text alone."""

from collections.abc import Sequence
from pathlib import Path

from llama_keras.errors import InputError
from llama_keras.eval.precision import graph_precision
from llama_keras.eval.record import digest
from llama_keras.eval.requests import Answer, Request
from llama_keras.eval.targets.fingerprints import file_fingerprint
from llama_keras.eval.targets.signatures import (
    DEFAULT,
    answers_of,
    columns_of,
    refusal,
    used_signatures,
)
from llama_keras.serving.manifest import Manifest, read_manifest


class SavedModelTarget:
    """The newest version in a folder, or the version itself.

    Args:
        directory: NAME/ or NAME/VERSION/.
        signature: of an export with several heads, the name of one; by default the first.

    Raises:
        InputError: there is no export, or no such head.
    """

    kind = "saved_model"
    settings = ("signature",)

    def __init__(self, directory: str | Path, *, signature: str | None = None):
        from llama_keras.serving.local import SavedModel

        self._model = SavedModel(directory)
        self._folder = self._model.folder.path
        self.location = str(self._folder) + (f"#{signature}" if signature else "")
        self._head = signature
        known = self._model.signatures
        self._used = used_signatures(
            {name: (found.inputs, found.outputs) for name, found in known.items()},
            head=signature,
            location=self.location,
        )
        self.requests = frozenset(self._used)
        self.labels: list[str] | None = _labels(read_manifest(self._folder), signature)
        self.precision: str | None = graph_precision(self._folder)

    def ask(self, kind: str, requests: Sequence[Request], *, batch_size: int = 32) -> list[Answer]:
        """Gives one answer a request, in order; see `requests.Target`."""
        signature = self._used.get(kind, DEFAULT)
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
        return digest([files, self.labels, *([self._head] if self._head else [])])

    def first_tokens(self, kind: str, request: Request) -> None:
        """Gives None: the tokens stay in the graph."""
        return None


def _labels(manifest: Manifest, head: str | None) -> list[str] | None:
    """Gives the labels of the export, or of the head that is asked; without a name the first."""
    heads = manifest.heads
    own = heads.get(head or next(iter(heads), ""))
    return list(own.get("labels") or () if own else manifest.labels) or None
