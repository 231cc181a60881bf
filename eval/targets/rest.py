"""A model behind TF Serving's REST, ours or the real one."""

from collections.abc import Sequence
from typing import Any

from llama_keras.errors import InputError
from llama_keras.eval.requests import Answer, Request
from llama_keras.eval.targets.retries import with_retries
from llama_keras.eval.targets.signatures import USES, answers_of, requests_of, signature_of


class RestTarget:
    """One served model, by its URL.

    Args:
        url: `http://HOST:PORT/v1/models/NAME`, see `serving.client.predict`.
        retries: how often a request is asked again where the server does not answer or says that
            it cannot (429, 502, 503, 504), after 1, 2, 4, … seconds.
        timeout: seconds for one answer.
    """

    kind = "rest"
    labels: list[str] | None = None
    settings = ("retries", "timeout")

    def __init__(self, url: str, *, retries: int = 5, timeout: float = 300.0):
        self._retries = retries
        self._client = with_retries(lambda: self._connect(url, timeout), retries=retries)
        self.location = url
        self._signatures: tuple[str, ...] | None = None

    @property
    def requests(self) -> frozenset[str]:
        """The kinds of requests that the served signatures answer."""
        return requests_of(self._names())

    def ask(self, kind: str, requests: Sequence[Request], *, batch_size: int = 32) -> list[Answer]:
        """Gives one answer a request, in order; see `requests.Target`."""
        signature = signature_of(kind, self._names())
        answers: list[Answer] = []
        for start in range(0, len(requests), batch_size):
            part = requests[start : start + batch_size]
            columns = USES[kind].columns(part)
            outputs = with_retries(
                lambda columns=columns: self._client.run(signature, columns),
                retries=self._retries,
            )
            answers += answers_of(kind, outputs, len(part), self.labels, self.location)
        return answers

    def fingerprint(self) -> None:
        """Gives None: a server does not show its files."""
        return None

    def first_tokens(self, kind: str, request: Request) -> None:
        """Gives None: a server does not show its tokens."""
        return None

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()

    def _connect(self, url: str, timeout: float) -> Any:
        from llama_keras.serving.client import Client

        return Client(url, timeout=timeout)

    def _names(self) -> tuple[str, ...]:
        if self._signatures is None:
            answer = with_retries(self._client.metadata, retries=self._retries)
            try:
                self._signatures = tuple(answer["metadata"]["signature_def"]["signature_def"])
            except (KeyError, TypeError):
                raise InputError(f"{self.location} does not tell its signatures.") from None
        return self._signatures
