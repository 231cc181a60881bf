"""Asks a model behind TF Serving or `llama-keras serve`: REST and gRPC, blocking and async.

This one file is the whole client, so it is longer than others here. It needs httpx for REST and
grpcio for gRPC, and neither TensorFlow, NumPy, protobuf nor the package that it lies in: import it
from there, or copy it.

    with Client("http://127.0.0.1:8501/v1/models/sentiment", token="...") as model:
        model.predict(["A lovely, moving film."])  # [{"label": "positive", "score": 0.98, ...}]
    async with AsyncClient("grpc://127.0.0.1:8500/sentiment") as model:
        await model.predict(texts, batch_size=32)  # several requests at once, rows in order

Only the async client is written out. The blocking one runs its coroutines over connections that
return with the answer, so that each is at its end after one step.
"""

import asyncio
import base64
import contextlib
import functools
import ipaddress
import itertools
import json
import math
import random
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import quote, unquote, urlsplit

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")
Row = dict[str, Any]

_DEFAULT_SIGNATURE = "serving_default"
_FORMS = "http://HOST:PORT/v1/models/NAME or grpc://HOST:PORT/NAME"
_VERBS = (":predict", ":classify", ":regress", "/metadata")
# Statuses of a server that may answer later; None: no connection.
_PASSING = (None, 429, 503)
_FIRST_WAIT = 0.25  # seconds before the second attempt; doubled for each further one
_CONNECT_SECONDS = 10.0
_IDLE_SECONDS = 4.0  # uvicorn closes idle connections after 5; who comes then has to ask again
_MAX_MESSAGE_BYTES = 256 * 2**20


class ServingError(ValueError):
    """The server cannot be reached or refused the request, or the request is none.

    Attributes:
        message: the reason, with the URL.
        status: of HTTP, or the one that a gRPC code stands for; 504 where no answer came in time,
            400 for mistakes that are found here; None where no connection came about.
        retry_after: seconds that the server asks to wait, if it does.
    """

    def __init__(
        self, message: str, *, status: int | None = None, retry_after: float | None = None
    ):
        super().__init__(message)
        self.message, self.status, self.retry_after = message, status, retry_after


def predict(
    target: str,
    texts: Sequence[Any],
    signature: str | None = None,
    *,
    batch_size: int = 32,
    **settings: Any,
) -> list[Row]:
    """Gives one dict of outputs a text, see `AsyncClient.predict`; the settings are its class's."""
    with Client(target, **settings) as client:
        return client.predict(texts, signature=signature, batch_size=batch_size)


class AsyncClient:
    """Connections to one served model, kept open between requests.

    Args:
        url: `http(s)://HOST:PORT/v1/models/NAME` or `grpc(s)://HOST:PORT/NAME`, both perhaps with
            `/versions/V` or `/labels/L` behind. Where `llama-keras serve` serves one model,
            `http://HOST:PORT` is enough (TF Serving does not list its models).
        version, label: of the model, in place of the URL's; by default the newest version.
        token: sent as `Authorization: Bearer TOKEN`.
        ca_file: certificates (PEM) to trust in place of the system's.
        timeout: seconds for one answer.
        retries: how often a request is asked again where there is no connection or the server
            says that it cannot now (429, 503, UNAVAILABLE): after 0.25, 0.5, 1, … seconds, or as
            many as the server asks for where these are no more than `timeout`. Predictions change
            nothing on a server, so asking again does no harm.
        concurrency: requests of one `predict` that are under way at once.

    Attributes:
        url: as given.

    Raises:
        ServingError: the URL is none.
    """

    _is_blocking = False

    def __init__(
        self,
        url: str,
        *,
        version: int | None = None,
        label: str | None = None,
        token: str | None = None,
        ca_file: str | None = None,
        timeout: float = 60.0,
        retries: int = 3,
        concurrency: int = 8,
    ):
        place = _place(url, version, label)
        self.url, self._retries, self._timeout = url, retries, timeout
        self._concurrency = concurrency
        link = _GrpcLink if place.scheme.startswith("grpc") else _RestLink
        self._link = link(place, self, token=token, ca_file=ca_file)
        self._signatures: dict[str, Any] | None = None

    async def predict(
        self, rows: Sequence[Any], *, signature: str | None = None, batch_size: int = 32
    ) -> list[Row]:
        """Gives one dict of outputs a row, in order.

        Args:
            rows: of a signature with one input its values, such as texts; else dicts of the
                inputs by name. Strings may be `bytes`.
            signature: its name, by default `serving_default`.
            batch_size: rows a request; several requests run at once, see `concurrency`.

        Returns:
            Output name to value, such as `{"label": "positive", "score": 0.98}`; strings as
            `str`, those of outputs called `*_bytes` as `bytes`.

        Raises:
            ServingError: no connection, no answer in time, or an error of the server.
        """
        parts = [list(rows[at : at + batch_size]) for at in range(0, len(rows), batch_size)]
        if self._is_blocking or len(parts) < 2:
            answers = [await self._again(self._link.rows, part, signature) for part in parts]
            return list(itertools.chain.from_iterable(answers))
        free = asyncio.Semaphore(self._concurrency)

        async def answer(part: list[Any]) -> list[Row]:
            async with free:
                return await self._again(self._link.rows, part, signature)

        tasks = [asyncio.ensure_future(answer(part)) for part in parts]
        try:
            return list(itertools.chain.from_iterable(await asyncio.gather(*tasks)))
        finally:
            for task in tasks:  # after an error nobody waits for the others
                task.cancel()

    async def run(self, signature: str | None, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Gives the outputs of a signature by name, as nested lists.

        Args:
            signature: its name, None for `serving_default`.
            columns: input name to values, nested lists or arrays.

        Raises:
            ServingError: see `predict`.
        """
        return await self._again(self._link.run, signature, columns)

    async def metadata(self) -> dict[str, Any]:
        """Gives the signatures, in the form of TF Serving's REST."""
        return await self._again(self._link.metadata)

    async def signatures(self) -> dict[str, Any]:
        """Gives, by name, each signature's "inputs" and "outputs"; asked for once."""
        return await self._again(self._known)

    async def inputs(self, signature: str | None = None) -> list[str]:
        """Gives the names of a signature's inputs."""
        return sorted((await self._again(self._described, signature))["inputs"])

    async def status(self) -> list[dict[str, Any]]:
        """Gives the state of each version: `{"version": "3", "state": "AVAILABLE", …}`."""
        return await self._again(self._link.status)

    async def versions(self) -> list[int]:
        """Gives the versions that answer now."""
        states = await self.status()
        return sorted(int(s["version"]) for s in states if s["state"] == "AVAILABLE")

    async def complete(self, prompt: str, **settings: Any) -> str:
        """Gives how a generator goes on, by the OpenAI API of `llama-keras serve`.

        Args:
            prompt: the text.
            **settings: of `/v1/completions`: `max_tokens`, `temperature`, `stop`, …
        """
        body = {"prompt": prompt, **settings}
        return (await self._again(self._link.openai, "completions", body))["choices"][0]["text"]

    async def stream_chat(
        self, messages: Sequence[Mapping[str, str]], **settings: Any
    ) -> AsyncIterator[str]:
        """Gives a generator's answer piece by piece, by the OpenAI API of `llama-keras serve`.

        Args:
            messages: of a conversation: `{"role": "user", "content": "…"}`.
            **settings: of `/v1/chat/completions`: `max_tokens`, `temperature`, `stop`, …
        """
        body = {"messages": messages, **settings, "stream": True}
        async for line in self._link.lines("chat/completions", body):
            if piece := _piece(line, self.url):
                yield piece

    async def close(self) -> None:
        """Closes the connections."""
        await self._link.close()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _known(self) -> dict[str, Any]:
        if self._signatures is None:
            answer = await self._link.metadata()
            try:
                found = answer["metadata"]["signature_def"]["signature_def"]
                # Those of TensorFlow's own begin so.
                self._signatures = {n: found[n] for n in found if not n.startswith("__")}
            except (KeyError, TypeError, ValueError):
                text = f"{self.url} does not tell its signatures; is it a model's URL?"
                raise ServingError(text, status=200) from None
        return self._signatures

    async def _described(self, signature: str | None) -> dict[str, Any]:
        known, name = await self._known(), signature or _DEFAULT_SIGNATURE
        if name not in known:
            text = f"{self.url} has no signature {name!r}; it has {sorted(known)}."
            raise ServingError(text, status=400)
        return known[name]

    async def _again(self, call: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        for attempt in itertools.count():
            try:
                return await call(*arguments)
            except ServingError as error:
                wait = error.retry_after
                if wait is None:  # not all at once: those who met the same trouble come apart
                    wait = _FIRST_WAIT * 2**attempt * random.uniform(0.5, 1.0)
                is_last = attempt >= self._retries or wait > self._timeout
                if is_last or error.status not in _PASSING:
                    raise
            await self._sleep(wait)

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _BlockingCore(AsyncClient):
    """The client over connections that return with the answer."""

    _is_blocking = True

    async def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def _blocking(
    method: Callable[Concatenate[AsyncClient, Arguments], Awaitable[Result]],
) -> Callable[Concatenate["Client", Arguments], Result]:
    @functools.wraps(method)
    def call(self: "Client", *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return _ended(method(self._core, *args, **kwargs))

    return call


def _ended(awaitable: Any) -> Any:
    """Gives what a coroutine that never waits returns."""
    try:
        awaitable.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("a blocking call waited")


class Client:
    """Does as `AsyncClient` and takes what it takes, but waits; requests go one by one."""

    def __init__(self, url: str, **settings: Any):
        self.url, self._core = url, _BlockingCore(url, **settings)

    predict = _blocking(AsyncClient.predict)
    run = _blocking(AsyncClient.run)
    metadata = _blocking(AsyncClient.metadata)
    signatures = _blocking(AsyncClient.signatures)
    inputs = _blocking(AsyncClient.inputs)
    status = _blocking(AsyncClient.status)
    versions = _blocking(AsyncClient.versions)
    complete = _blocking(AsyncClient.complete)
    close = _blocking(AsyncClient.close)

    def stream_chat(self, messages: Sequence[Mapping[str, str]], **settings: Any) -> Iterator[str]:
        """Gives a generator's answer piece by piece; see `AsyncClient.stream_chat`."""
        pieces: Any = self._core.stream_chat(messages, **settings)
        try:
            while True:
                yield _ended(pieces.__anext__())
        except StopAsyncIteration:
            return
        finally:
            _ended(pieces.aclose())

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# --- addresses -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """Where a model is served.

    Attributes:
        scheme: http, https, grpc or grpcs.
        server: HOST:PORT; of REST perhaps with a path before `/v1`.
        name: of the model; "" where the server is asked for it.
        version, label: of the model.
    """

    scheme: str
    server: str
    name: str
    version: int | None = None
    label: str | None = None


def is_loopback(url: str) -> bool:
    """Whether a URL is of this machine: no proxy may swallow requests to it."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _place(url: str, version: int | None, label: str | None) -> _Place:
    try:
        parts = urlsplit(url)
        is_known = parts.scheme in ("http", "https", "grpc", "grpcs") and bool(parts.hostname)
        parts.port  # noqa: B018 (raises for what is no port)
    except ValueError:
        is_known = False
    if not is_known:
        raise ServingError(f"{url!r} is not a server's URL; write {_FORMS}.", status=400)
    path, server = parts.path.rstrip("/"), parts.netloc
    if parts.scheme.startswith("http"):
        for verb in _VERBS:
            path = path.removesuffix(verb)
        prefix, found, path = path.partition("/v1/models/")
        if not found and prefix in ("", "/v1", "/v1/models"):
            return _Place(parts.scheme, server, "", version, label)
        server += prefix if found else ""
    name, *rest = [unquote(part) for part in path.strip("/").split("/")]
    if len(rest) == 2 and rest[0] == "versions" and rest[1].isdecimal():
        version, rest = (int(rest[1]) if version is None else version), []
    elif len(rest) == 2 and rest[0] == "labels":
        label, rest = (rest[1] if label is None else label), []
    if not name or rest or (version is not None and label is not None):
        text = f"{url!r} is not a model's URL; write {_FORMS}, perhaps with /versions/V"
        raise ServingError(f"{text} or /labels/L behind.", status=400)
    return _Place(parts.scheme, server, name, version, label)


# --- REST ----------------------------------------------------------------------------------------


class _RestLink:
    """TF Serving's REST, and the OpenAI API beside it."""

    def __init__(self, place: _Place, core: AsyncClient, *, token: Any, ca_file: Any):
        import httpx

        self._place, self._core, self._name = place, core, place.name
        self._base = f"{place.scheme}://{place.server}/v1"
        self._is_blocking, self._timeout = core._is_blocking, core._timeout
        kind: Any = httpx.Client if core._is_blocking else httpx.AsyncClient
        headers = {"Content-Type": "application/json"}
        self._http = kind(
            headers=headers | ({"Authorization": f"Bearer {token}"} if token else {}),
            timeout=httpx.Timeout(self._timeout, connect=min(_CONNECT_SECONDS, self._timeout)),
            limits=httpx.Limits(keepalive_expiry=_IDLE_SECONDS),
            verify=_tls(ca_file) if place.scheme == "https" else True,
            trust_env=not is_loopback(self._base),
        )

    async def rows(self, rows: list[Any], signature: str | None) -> list[Row]:
        found = (await self._predict("instances", rows, signature)).get("predictions")
        if not isinstance(found, list) or len(found) != len(rows):
            text = f"{self._core.url} sent no list of {len(rows)} predictions; is it a TF Serving"
            raise ServingError(f"{text} REST endpoint?", status=200)
        return [await self._named(row, signature) for row in found]

    async def run(self, signature: str | None, columns: Mapping[str, Any]) -> dict[str, Any]:
        answer = await self._predict("inputs", dict(columns), signature)
        if "outputs" not in answer:
            text = f"{self._core.url} sent no outputs; is it a TF Serving REST endpoint?"
            raise ServingError(text, status=200)
        return await self._named(answer["outputs"], signature)

    async def status(self) -> list[dict[str, Any]]:
        return (await self._asked("GET", await self._model())).get("model_version_status", [])

    async def metadata(self) -> dict[str, Any]:
        return await self._asked("GET", f"{await self._model()}/metadata")

    async def openai(self, path: str, body: Row) -> dict[str, Any]:
        body = {"model": await self._named_model(), **body}
        return await self._asked("POST", f"{self._base}/{path}", body)

    async def lines(self, path: str, body: Row) -> AsyncIterator[str]:
        body = {"model": await self._named_model(), **body}
        url = f"{self._base}/{path}"
        stream = self._http.stream("POST", url, content=_json(body))
        with _told(url, self._timeout):
            if self._is_blocking:
                with stream as response:
                    if not response.is_success:
                        response.read()
                        _content(response)
                    for line in response.iter_lines():
                        yield line
            else:
                async with stream as response:
                    if not response.is_success:
                        await response.aread()
                        _content(response)
                    async for line in response.aiter_lines():
                        yield line

    async def close(self) -> None:
        if self._is_blocking:
            self._http.close()
        else:
            await self._http.aclose()

    async def _predict(self, form: str, values: Any, signature: str | None) -> dict[str, Any]:
        body = {"signature_name": signature} if signature else {}
        return await self._asked("POST", f"{await self._model()}:predict", {**body, form: values})

    async def _model(self) -> str:
        place = self._place
        version = "" if place.version is None else f"/versions/{place.version}"
        label = "" if place.label is None else f"/labels/{quote(place.label, safe='')}"
        return f"{self._base}/models/{quote(await self._named_model(), safe='')}{version}{label}"

    async def _named_model(self) -> str:
        """Gives the model's name; asks the server, if it lists just one."""
        if not self._name:
            try:
                models = [
                    m["id"] for m in (await self._asked("GET", f"{self._base}/models"))["data"]
                ]
            except (ServingError, KeyError, TypeError) as error:
                if isinstance(error, ServingError) and error.status not in (200, 400, 404):
                    raise
                models = []  # TF Serving answers 400: it does not list its models
            if len(models) != 1:
                known = f" (it serves {', '.join(models)})" if models else ""
                text = f"{self._core.url} does not say which model is meant{known}; write"
                raise ServingError(f"{text} {self._base}/models/NAME.", status=400)
            self._name = models[0]
        return self._name

    async def _named(self, value: Any, signature: str | None) -> Row:
        """Gives outputs by name; TF Serving leaves out the name of an only one."""
        if not isinstance(value, dict) or set(value) == {"b64"}:
            value = {next(iter((await self._core._described(signature))["outputs"])): value}
        return {name: _unpacked(item) for name, item in value.items()}

    async def _asked(self, method: str, url: str, body: Any = None) -> dict[str, Any]:
        content = None if body is None else _json(body)
        with _told(url, self._timeout):
            response = self._http.request(method, url, content=content)
            return _content(response if self._is_blocking else await response)


@contextlib.contextmanager
def _told(url: str, timeout: float) -> Iterator[None]:
    """Raises errors of the connection as `ServingError`."""
    import httpx

    try:
        yield
    except (httpx.ReadTimeout, httpx.WriteTimeout):
        text = f"{url} did not answer within {timeout:g} s; is it loading or overloaded?"
        raise ServingError(text, status=504) from None
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        reason = str(error) or type(error).__name__
        text = f"No connection to {url} ({reason}); start a server with: llama-keras serve DIR"
        raise ServingError(text) from None


def _tls(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        text = f"The certificates in {ca_file} cannot be read ({error}); name a PEM file."
        raise ServingError(text, status=400) from None


def _content(response: Any) -> dict[str, Any]:
    """Gives an answer's JSON object, or raises what it says in place of one."""
    try:
        content = response.json()
    except (ValueError, RecursionError):
        content = None
    if response.is_success and isinstance(content, dict):
        return content
    said = content.get("error") if isinstance(content, dict) else None
    said = said.get("message", said) if isinstance(said, dict) else said  # the OpenAI API's form
    text = str(said or response.text.strip()[:200] or response.reason_phrase)
    raise ServingError(
        f"{response.url} answered {response.status_code}: {text}",
        status=response.status_code,
        retry_after=_seconds(response.headers.get("Retry-After")),
    )


def _seconds(header: str | None) -> float | None:
    """Gives what `Retry-After` says: a number of seconds, or a date."""
    try:
        if header is None or header.strip().isdecimal():
            return None if header is None else float(header)
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None


def _piece(line: str, url: str) -> str | None:
    """Gives the text in one line of a stream of events."""
    if not line.startswith("data:") or line[5:].strip() == "[DONE]":
        return None
    event = json.loads(line[5:])
    if said := event.get("error"):
        text = said.get("message", said) if isinstance(said, dict) else said
        raise ServingError(f"{url} broke off: {text}", status=500)
    return event["choices"][0]["delta"].get("content") if event.get("choices") else None


def _json(body: Any) -> bytes:
    """Gives JSON as TF Serving reads it: bytes as base64, NaN and Infinity as they are."""
    try:
        return json.dumps(body, ensure_ascii=False, default=_jsonable).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ServingError(f"The request does not go into JSON: {error}.", status=400) from None


def _jsonable(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode("ascii")}
    if hasattr(value, "tolist"):  # arrays and their scalars
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} is no input")


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"b64"}:
        return base64.b64decode(value["b64"])
    return [_unpacked(item) for item in value] if isinstance(value, list) else value


# --- gRPC: the few messages that are needed, by the field numbers of tensorflow_serving/apis -----

# gRPC's codes in the words of HTTP, as TF Serving's REST translates them.
_HTTP_STATUS = {
    "CANCELLED": 499, "INVALID_ARGUMENT": 400, "DEADLINE_EXCEEDED": 504, "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409, "PERMISSION_DENIED": 403, "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400, "ABORTED": 409, "OUT_OF_RANGE": 400, "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503, "UNAUTHENTICATED": 401,
}  # fmt: skip
_CODES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND"),
    *("ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION"),
    *("ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"),
    "UNAUTHENTICATED",
)
_STATES = {10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
_STRING = 7
# DT_* number -> name, letter of `struct`, field of single values (tensor.proto, types.proto).
_TYPES = {
    1: ("DT_FLOAT", "f", 5), 2: ("DT_DOUBLE", "d", 6), 3: ("DT_INT32", "i", 7),
    4: ("DT_UINT8", "B", 7), 5: ("DT_INT16", "h", 7), 6: ("DT_INT8", "b", 7),
    _STRING: ("DT_STRING", "", 8), 9: ("DT_INT64", "q", 10), 10: ("DT_BOOL", "?", 11),
    17: ("DT_UINT16", "H", 7), 19: ("DT_HALF", "e", 13), 22: ("DT_UINT32", "I", 16),
    23: ("DT_UINT64", "Q", 17),
}  # fmt: skip
_NUMBERS = {name: number for number, (name, _, _) in _TYPES.items()}
_SERVICES = {"GetModelStatus": "ModelService"}  # the others are PredictionService's


class _GrpcLink:
    """TF Serving's PredictionService and ModelService."""

    def __init__(self, place: _Place, core: AsyncClient, *, token: Any, ca_file: Any):
        self._place, self._core, self._ca_file = place, core, ca_file
        self._headers = [("authorization", f"Bearer {token}")] if token else []
        self._channel: Any = None
        if place.scheme == "grpcs":
            _tls(ca_file)  # tells what is wrong with the file
        elif ca_file:
            raise ServingError(f"{core.url} is not encrypted; write grpcs://.", status=400)

    async def rows(self, rows: list[Any], signature: str | None) -> list[Row]:
        names = sorted((await self._core._described(signature))["inputs"])
        if len(names) == 1:
            rows = [row if isinstance(row, Mapping) else {names[0]: row} for row in rows]
        if any(not isinstance(row, Mapping) or sorted(row) != names for row in rows):
            text = f"{self._core.url} takes rows that have {', '.join(names)} by name."
            raise ServingError(text, status=400)
        columns = await self.run(signature, {name: [row[name] for row in rows] for name in names})
        if any(not isinstance(c, list) or len(c) != len(rows) for c in columns.values()):
            text = f"{self._core.url} has outputs that do not give one value a row; use run()."
            raise ServingError(text, status=400)
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    async def run(self, signature: str | None, columns: Mapping[str, Any]) -> dict[str, Any]:
        known = (await self._core._described(signature))["inputs"]
        request = _field(1, self._spec(signature or ""))
        for name, values in columns.items():
            if name not in known:
                text = f"{self._core.url}, {signature}: no input {name!r}; it has {sorted(known)}."
                raise ServingError(text, status=400)
            tensor = _tensor(name, values, known[name]["dtype"])
            request += _field(2, _field(1, name) + _field(2, tensor))
        return await self._asked("Predict", request, _outputs)

    async def metadata(self) -> dict[str, Any]:
        request = _field(1, self._spec()) + _field(2, "signature_def")
        return await self._asked("GetModelMetadata", request, _metadata)

    async def status(self) -> list[dict[str, Any]]:
        return await self._asked("GetModelStatus", _field(1, self._spec()), _status)

    async def openai(self, path: str, body: Row) -> dict[str, Any]:
        text = f"{self._core.url}: the OpenAI API is served over http:// only."
        raise ServingError(text, status=501)

    async def lines(self, path: str, body: Row) -> AsyncIterator[str]:
        yield str(await self.openai(path, body))

    async def close(self) -> None:
        if self._channel is not None:
            closing = self._channel.close()
            if not self._core._is_blocking:
                await closing

    def _spec(self, signature: str = "") -> bytes:
        place = self._place
        spec = _field(1, place.name) + (_field(3, signature) if signature else b"")
        if place.version is not None:
            spec += _field(2, _field(1, place.version))
        return spec if place.label is None else spec + _field(4, place.label)

    async def _asked(self, method: str, request: bytes, read: Callable[..., Result]) -> Result:
        import grpc

        if self._channel is None:  # not before: it belongs to the running loop
            self._channel = self._opened()
        service = f"tensorflow.serving.{_SERVICES.get(method, 'PredictionService')}"
        call = self._channel.unary_unary(f"/{service}/{method}")
        url = self._core.url
        try:
            answer = call(request, timeout=self._core._timeout, metadata=self._headers)
            return read(_fields(answer if self._core._is_blocking else await answer))
        except grpc.RpcError as error:
            failed: Any = error
            code, details = failed.code().name, failed.details()
            text = f"{url} answered {code}: {details}"
            if code == "UNAVAILABLE":
                text = f"No connection to {url} ({details})."
            pushed = dict(failed.trailing_metadata() or ()).get("grpc-retry-pushback-ms", "")
            wait = int(pushed) / 1000 if str(pushed).isdecimal() else None
            status = _HTTP_STATUS.get(code, 500)
            raise ServingError(text, status=status, retry_after=wait) from None
        except (ValueError, IndexError, TypeError, AttributeError, struct.error) as error:
            text = f"{url} sent what is no answer of TF Serving ({error})."
            raise ServingError(text, status=200) from None

    def _opened(self) -> Any:
        import grpc
        import grpc.aio

        options = [
            *(
                (f"grpc.max_{way}_message_length", _MAX_MESSAGE_BYTES)
                for way in ("send", "receive")
            ),
            # A server that comes back is found at once, not after two minutes.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.enable_http_proxy", int(not is_loopback(self._core.url))),
        ]
        kind: Any = grpc if self._core._is_blocking else grpc.aio
        if self._place.scheme == "grpc":
            return kind.insecure_channel(self._place.server, options=options)
        trusted = None
        if self._ca_file:
            with open(self._ca_file, "rb") as file:
                trusted = file.read()
        credentials = grpc.ssl_channel_credentials(trusted)
        return kind.secure_channel(self._place.server, credentials, options=options)


# What a message says, from its fields.


def _outputs(answer: dict[int, list[Any]]) -> dict[str, Any]:
    return {name: _values(name, raw) for name, raw in sorted(_map(answer, 1).items())}


def _metadata(answer: dict[int, list[Any]]) -> dict[str, Any]:
    table = _fields(_fields(_map(answer, 2).get("signature_def", b"")).get(2, [b""])[0])
    signatures = {name: _signature(raw) for name, raw in sorted(_map(table, 1).items())}
    spec = _fields(answer.get(1, [b""])[0])
    version = _signed(_fields(spec.get(2, [b""])[0]).get(1, [0])[0])
    name = spec.get(1, [b""])[0].decode()
    return {
        "model_spec": {"name": name, "signature_name": "", "version": str(version)},
        "metadata": {"signature_def": {"signature_def": signatures}},
    }


def _status(answer: dict[int, list[Any]]) -> list[dict[str, Any]]:
    return [_version_status(_fields(raw)) for raw in answer.get(1, [])]


def _version_status(fields: dict[int, list[Any]]) -> dict[str, Any]:
    status = _fields(fields.get(3, [b""])[0])
    code, message = status.get(1, [0])[0], status.get(2, [b""])[0]
    return {
        "version": str(_signed(fields.get(1, [0])[0])),
        "state": _STATES.get(fields.get(2, [0])[0], "UNKNOWN"),
        "status": {
            "error_code": _CODES[code] if code < len(_CODES) else str(code),
            "error_message": message.decode("utf-8", "replace"),
        },
    }


def _signature(raw: bytes) -> dict[str, Any]:
    fields = _fields(raw)
    return {
        "inputs": {name: _tensor_info(info) for name, info in sorted(_map(fields, 1).items())},
        "outputs": {name: _tensor_info(info) for name, info in sorted(_map(fields, 2).items())},
        "method_name": fields.get(3, [b""])[0].decode(),
    }


def _tensor_info(raw: bytes) -> dict[str, Any]:
    fields = _fields(raw)
    number, shape = fields.get(2, [0])[0], _fields(fields.get(3, [b""])[0])
    dims = [_fields(dim) for dim in shape.get(2, [])]
    sizes = [{"size": str(_signed(d.get(1, [0])[0])), "name": ""} for d in dims]
    return {
        "dtype": _TYPES[number][0] if number in _TYPES else f"type {number}",
        "tensor_shape": {"dim": sizes, "unknown_rank": bool(shape.get(3, [0])[0])},
        "name": fields.get(1, [b""])[0].decode(),
    }


def _tensor(name: str, values: Any, dtype: str) -> bytes:
    """Gives a `TensorProto`."""
    shape: list[int] = []
    flat = [values.tolist() if hasattr(values, "tolist") else values]
    try:
        while flat and isinstance(flat[0], list | tuple):
            shape.append(len(flat[0]))
            if any(len(part) != shape[-1] for part in flat):
                raise ValueError("its rows differ in length")
            flat = [item for part in flat for item in part]
        dims = b"".join(_field(2, _field(1, size)) for size in shape)
        head = _field(1, _NUMBERS[dtype]) + _field(2, dims)
        if dtype == "DT_STRING":
            if wrong := [item for item in flat if not isinstance(item, str | bytes)]:
                raise TypeError(f"{wrong[0]!r:.80} is no string")
            return head + b"".join(_field(8, item) for item in flat)
        return head + _field(4, struct.pack(f"<{len(flat)}{_TYPES[_NUMBERS[dtype]][1]}", *flat))
    except (TypeError, ValueError, KeyError, struct.error, OverflowError) as error:
        raise ServingError(f"Input {name!r} is no {dtype}: {error}.", status=400) from None


def _values(name: str, raw: bytes) -> Any:
    """Gives the values of a `TensorProto` as nested lists."""
    fields = _fields(raw)
    number, dims = fields.get(1, [0])[0], _fields(fields.get(2, [b""])[0]).get(2, [])
    shape = [_fields(dim).get(1, [0])[0] for dim in dims]
    if number not in _TYPES:
        raise ValueError(f"output {name!r} has a type that cannot be read: {number}")
    _, letter, place = _TYPES[number]
    count, content = math.prod(shape), fields.get(4, [b""])[0]
    if number == _STRING:
        flat = fields.get(place, [])
        if not name.endswith("_bytes"):
            flat = [item.decode("utf-8", "replace") for item in flat]
    elif content:
        flat = list(struct.unpack(f"<{len(content) // struct.calcsize(letter)}{letter}", content))
    else:
        flat = [number for part in fields.get(place, []) for number in _numbers(part, letter)]
    if flat:
        flat += flat[-1:] * (count - len(flat))  # the last one stands for all that are left out
    if len(flat) != count:
        raise ValueError(f"output {name!r} has {len(flat)} values for the shape {shape}")
    return _nested(iter(flat), shape)


def _nested(values: Iterator[Any], shape: Sequence[int]) -> Any:
    if not shape:
        return next(values)
    if len(shape) == 1:
        return list(itertools.islice(values, shape[0]))
    return [_nested(values, shape[1:]) for _ in range(shape[0])]


def _numbers(part: Any, letter: str) -> Iterator[Any]:
    """Gives the numbers of a field that may be packed."""
    if isinstance(part, bytes) and letter in "fd":
        yield from struct.unpack(f"<{len(part) // struct.calcsize(letter)}{letter}", part)
        return
    at = 0
    while isinstance(part, int) or at < len(part):
        value, at = (part, at) if isinstance(part, int) else _varint_at(part, at)
        if letter == "e":
            yield struct.unpack("<e", struct.pack("<H", value))[0]
        else:
            yield bool(value) if letter == "?" else _signed(value) if letter.islower() else value
        if isinstance(part, int):
            return


def _map(fields: dict[int, list[Any]], number: int) -> dict[str, bytes]:
    entries = [_fields(entry) for entry in fields.get(number, [])]
    return {e.get(1, [b""])[0].decode(): e.get(2, [b""])[0] for e in entries}


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(raw)) + raw


def _fields(raw: bytes) -> dict[int, list[Any]]:
    """Gives a message's values by field number: whole numbers as int, all others as bytes."""
    found: dict[int, list[Any]] = {}
    at = 0
    while at < len(raw):
        key, at = _varint_at(raw, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint_at(raw, at)
        elif kind in (1, 2, 5):
            size, at = _varint_at(raw, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            value, at = raw[at : at + size], at + size
        else:
            raise ValueError(f"wire type {kind}")
        if at > len(raw):
            raise ValueError("cut off")
        found.setdefault(key >> 3, []).append(value)
    return found


def _varint(number: int) -> bytes:
    number &= 2**64 - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _varint_at(raw: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = raw[at]
        number, shift, at = number | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return number, at


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number
