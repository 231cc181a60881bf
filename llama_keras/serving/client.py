"""Ask a model served over TF Serving's REST; needs neither TensorFlow nor Keras."""

import base64
import ipaddress
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from ..errors import InputError
from .signature_def import DEFAULT_SIGNATURE

_VERBS = (":predict", ":classify", ":regress", "/metadata")


class ServingError(InputError):
    """The server cannot be reached or refused the request.

    Attributes:
        status: the HTTP status, None when no answer came.
    """

    def __init__(self, message: str, *, status: int | None = None):
        """Keep the message for people and the status for programs."""
        super().__init__(message)
        self.status = status


def predict(
    target: str,
    texts: Sequence[str],
    signature: str | None = None,
    *,
    timeout: float = 60.0,
    batch_size: int = 32,
) -> list[dict[str, Any]]:
    """Return one dict of outputs per text from a served model.

    Args:
        target: `http://HOST:PORT/v1/models/NAME`, or `http://HOST:PORT` where `llama-keras serve`
            runs (TF Serving itself does not list its models, so it needs the name).
        texts: the strings to ask about.
        signature: the signature's name, by default `serving_default`.
        timeout: seconds to wait for one answer.
        batch_size: texts a request.

    Returns:
        Output name to value, such as `{"label": "positive", "score": 0.98}`; `*_bytes` outputs
        as `bytes`.

    Raises:
        ServingError: no connection, no answer in time, or an error of the server.
    """
    with Client(target, timeout=timeout) as client:
        return client.predict(texts, signature=signature, batch_size=batch_size)


class Client:
    """A connection to one served model, kept open between requests.

    Attributes:
        url: the model's URL, `http://HOST:PORT/v1/models/NAME[/versions/V]`.
    """

    def __init__(self, target: str, *, timeout: float = 60.0):
        """Connect to `target` (see `predict`).

        Raises:
            ServingError: the URL is not one, or the server cannot tell its model's name.
        """
        # A proxy from the environment must not swallow requests to this machine.
        self._http = httpx.Client(timeout=timeout, trust_env=not _is_loopback(target))
        self._timeout = timeout
        try:
            self.url = self._model_url(target)
        except BaseException:
            self._http.close()
            raise

    def predict(
        self,
        texts: Sequence[str | Mapping[str, Any]],
        *,
        signature: str | None = None,
        batch_size: int = 32,
    ) -> list[dict[str, Any]]:
        """Return one dict of outputs per text; see the function `predict`.

        For a signature with several inputs a text is a dict of them by name.
        """
        rows: list[dict[str, Any]] = []
        for start in range(0, len(texts), batch_size):
            body: dict[str, Any] = {"instances": list(texts[start : start + batch_size])}
            if signature:
                body["signature_name"] = signature
            answer = self._request("POST", f"{self.url}:predict", json=body)
            predictions = answer.get("predictions")
            if not isinstance(predictions, list) or len(predictions) != len(body["instances"]):
                raise ServingError(
                    f"{self.url} sent no list of {len(body['instances'])} predictions; is it a "
                    "TF Serving REST endpoint?",
                    status=200,
                )
            rows += [self._row(value, signature) for value in predictions]
        return rows

    def run(self, signature: str, columns: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Return the outputs of a signature by name, each with one row a row of the inputs.

        Args:
            signature: its name.
            columns: input name to values, TF Serving's `inputs` form.

        Raises:
            ServingError: no connection, no answer in time, or an error of the server.
        """
        body = {"signature_name": signature, "inputs": columns}
        answer = self._request("POST", f"{self.url}:predict", json=body)
        if "outputs" not in answer:
            text = f"{self.url} sent no outputs; is it a TF Serving REST endpoint?"
            raise ServingError(text, status=200)
        outputs = answer["outputs"]
        if not isinstance(outputs, dict) or set(outputs) == {"b64"}:
            outputs = {self._single_output(signature): outputs}
        return {name: _decode(value) for name, value in outputs.items()}

    def status(self) -> list[dict[str, Any]]:
        """Return the state of each version, as TF Serving's status call gives it."""
        return self._request("GET", self.url).get("model_version_status", [])

    def metadata(self) -> dict[str, Any]:
        """Return the signatures, as TF Serving's metadata call gives them."""
        return self._request("GET", f"{self.url}/metadata")

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _row(self, value: Any, signature: str | None) -> dict[str, Any]:
        if not isinstance(value, dict) or set(value) == {"b64"}:
            value = {self._single_output(signature): value}
        return {name: _decode(item) for name, item in value.items()}

    def inputs(self, signature: str | None = None) -> list[str]:
        """Return the names of a signature's inputs; raise `InputError` where there is none."""
        known = self._described()
        name = signature or DEFAULT_SIGNATURE
        if name not in known:
            raise InputError(f"{self.url} has no signature {name!r}; it has {sorted(known)}.")
        return sorted(known[name]["inputs"])

    def _single_output(self, signature: str | None) -> str:
        """Name of the only output, which TF Serving leaves out of its answers."""
        return next(iter(self._described()[signature or DEFAULT_SIGNATURE]["outputs"]))

    def _described(self) -> dict[str, Any]:
        if not hasattr(self, "_signatures"):
            self._signatures = self.metadata()["metadata"]["signature_def"]["signature_def"]
        return self._signatures

    def _model_url(self, target: str) -> str:
        parts = urlsplit(target)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InputError(
                f"{target!r} is not a server's URL; write http://HOST:PORT/v1/models/NAME."
            )
        path = parts.path.rstrip("/")
        for verb in _VERBS:
            path = path.removesuffix(verb)
        server = f"{parts.scheme}://{parts.netloc}"
        if "/v1/models/" in path:
            return server + path
        if path not in ("", "/v1", "/v1/models"):
            raise InputError(f"{target} is not a model's URL; write {server}/v1/models/NAME.")
        return f"{server}/v1/models/{quote(self._only_model(server))}"

    def _only_model(self, server: str) -> str:
        try:
            models = [model["id"] for model in self._request("GET", f"{server}/v1/models")["data"]]
        except (ServingError, KeyError, TypeError) as error:
            if isinstance(error, ServingError) and error.status is None:
                raise
            models = []  # TF Serving answers 400: it does not list its models
        if len(models) == 1:
            return models[0]
        known = f" (it serves {', '.join(models)})" if models else ""
        raise InputError(
            f"{server} does not say which model is meant{known}; write {server}/v1/models/NAME."
        )

    def _request(self, method: str, url: str, **arguments: Any) -> dict[str, Any]:
        try:
            response = self._http.request(method, url, **arguments)
        except httpx.TimeoutException:
            raise ServingError(
                f"{url} did not answer within {self._timeout:g} s; is it loading or overloaded?"
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise ServingError(
                f"No connection to {url} ({error}); start a server with: llama-keras serve DIR"
            ) from None
        try:
            content = response.json()
        except ValueError:
            content = None
        if response.is_success and isinstance(content, dict):
            return content
        message = content.get("error") if isinstance(content, dict) else None
        text = str(message or response.text.strip()[:200] or response.reason_phrase)
        raise ServingError(
            f"{url} answered {response.status_code}: {text}", status=response.status_code
        )


def _decode(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"b64"}:
        return base64.b64decode(value["b64"])
    if isinstance(value, list):
        return [_decode(item) for item in value]
    return value


def _is_loopback(target: str) -> bool:
    host = urlsplit(target).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
