"""A model behind TF Serving's REST, ours or the real one."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from llama_keras.errors import InputError
from llama_keras.eval.requests import Answer, Request
from llama_keras.eval.targets.retries import FIRST_RETRIES, Sleep, with_retries
from llama_keras.eval.targets.signatures import (
    DEFAULT,
    answers_of,
    columns_of,
    refusal,
    used_signatures,
)

Result = TypeVar("Result")


class RestTarget:
    """One served model, by its URL.

    Args:
        url: `http://HOST:PORT/v1/models/NAME`, see `serving.client.AsyncClient`.
        labels: of a model with several labels a text, in the order of its scores; servers do not
            tell them.
        signature: of an export with several heads, the name of one; by default the first.
        retries: how often a request is asked again where the server does not answer or says that
            it cannot (429, 502, 503, 504), after 1, 2, 4, … seconds.
        timeout: seconds for one answer.
        sleep: what waits in place of `time.sleep`.

    Raises:
        UnavailableError: the server is away.
        InputError: it is no server of models.
    """

    kind = "rest"
    settings = ("labels", "retries", "signature", "timeout")

    def __init__(
        self,
        url: str,
        *,
        labels: Sequence[str] | None = None,
        retries: int = 5,
        signature: str | None = None,
        timeout: float = 300.0,
        sleep: Sleep | None = None,
    ):
        self._retries, self._sleep = retries, sleep
        self._client = self._first(lambda: self._connect(url, timeout))
        self.location = url + (f"#{signature}" if signature else "")
        self.labels: list[str] | None = None if labels is None else list(labels)
        self._head = signature
        self._used: dict[str, str] | None = None

    @property
    def requests(self) -> frozenset[str]:
        """The kinds of requests that the served signatures answer."""
        return frozenset(self._signatures())

    def ask(self, kind: str, requests: Sequence[Request], *, batch_size: int = 32) -> list[Answer]:
        """Gives one answer a request, in order; see `requests.Target`."""
        signature = self._signatures().get(kind, DEFAULT)
        inputs = list(self._first(lambda: self._client.inputs(signature)))
        answers: list[Answer] = []
        for start in range(0, len(requests), batch_size):
            part = requests[start : start + batch_size]
            columns = columns_of(kind, part, inputs=inputs, location=self.location)
            outputs = self._run(kind, signature, columns)
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

    def _run(self, kind: str, signature: str, columns: dict[str, list[Any]]) -> dict[str, Any]:
        from llama_keras.serving.client import ServingError

        call = lambda: self._client.run(signature, columns)  # noqa: E731
        try:
            return with_retries(call, retries=self._retries, sleep=self._sleep)
        except ServingError as error:
            raise InputError(refusal(kind, str(error))) from None

    def _connect(self, url: str, timeout: float) -> Any:
        from llama_keras.serving.client import Client

        # What a server that is away has to be asked again is counted here.
        return Client(url, timeout=timeout, retries=0)

    def _signatures(self) -> dict[str, str]:
        """Gives the kinds of requests that are answered, and by which signature."""
        if self._used is None:
            told = self._first(self._client.signatures)
            known = {name: (found["inputs"], found["outputs"]) for name, found in told.items()}
            self._used = used_signatures(known, head=self._head, location=self.location)
        return self._used

    def _first(self, call: Callable[[], Result]) -> Result:
        """Gives what `call` gives; before there were answers a server is not waited for so long."""
        from llama_keras.serving.client import ServingError

        try:
            return with_retries(call, retries=min(FIRST_RETRIES, self._retries), sleep=self._sleep)
        except ServingError as error:
            raise InputError(str(error)) from None
