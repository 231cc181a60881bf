"""Serve one SavedModel with TF Serving's REST on this machine.

`llama-keras serve DIR` runs it; in a program: `with serve_in_background(DIR, port=0) as url: ...`.
Paths, bodies and status codes are those of https://www.tensorflow.org/tfx/serving/api_rest. Only
TensorFlow and TF-Text run the model, none of this package's layers.
"""

import errno
import json
import os
import re
import shlex
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import anyio.to_thread
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ..errors import InputError
from .local import SavedModel
from .manifest import read_manifest
from .rest import (
    RestError,
    decode_inputs,
    encode_error,
    encode_outputs,
    parse_body,
    requested_signature,
)
from .signature_def import DEFAULT_SIGNATURE, read_saved_model
from .versions import find_model

DEFAULT_PORT = 8501
MAX_REQUEST_BYTES = 32 * 2**20
_VERSION = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_POST = re.compile(rf"(?i)/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<verb>predict|classify|regress)")
_GET = re.compile(rf"(?i)/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?P<metadata>/metadata)?")
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
# TensorFlow's error codes -> HTTP, as tensorflow_serving/model_servers/http_server.cc does.
_HTTP_STATUS = {
    1: 499, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 11: 400, 12: 501,
    14: 503, 16: 401,
}  # fmt: skip


class ModelServer:
    """A model, the port it is served on, and the ASGI application between them.

    Attributes:
        name: the model's name in URLs.
        version: the version served.
        url: the model's URL, `http://HOST:PORT/v1/models/NAME`.
        app: the ASGI application.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        name: str | None = None,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        max_request_bytes: int = MAX_REQUEST_BYTES,
        grpc_port: int | None = None,
    ):
        """Take the port and load the model; serving starts with `run`.

        Args:
            directory: what to serve, see `versions.find_model`.
            name: the model's name in URLs, by default its folder's name.
            host: address to listen on; loopback unless told otherwise.
            port: 0 takes a free one.
            max_request_bytes: larger bodies get status 413.
            grpc_port: serve gRPC there, too (0: a free one); None does not.

        Raises:
            InputError: no model there, it does not load, or the port is taken.
        """
        folder = find_model(directory, name=name)
        read_saved_model(folder.path)
        self.name, self.version = folder.name, folder.version
        self._socket = _listen(host, port)
        address = f"[{host}]" if ":" in host else host
        try:
            self._model = SavedModel(folder.path)
            self._grpc = self._grpc_server(address, grpc_port, max_request_bytes)
        except BaseException:
            self._socket.close()
            raise
        base = f"http://{address}:{self._socket.getsockname()[1]}"
        self.url = f"{base}/v1/models/{quote(self.name)}"
        self._max_request_bytes = max_request_bytes
        self._limiter: anyio.CapacityLimiter | None = None
        self.app = Starlette(routes=[Route("/{path:path}", self._handle, methods=_METHODS)])
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                self.app, log_level="error", access_log=False, timeout_graceful_shutdown=15
            )
        )

    def run(self) -> None:
        """Serve until `stop`, SIGINT or SIGTERM; requests in progress are answered first."""
        if threading.current_thread() is threading.main_thread():
            # uvicorn raises the signal again once it has stopped; stopping is not a failure.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: None)
        if self._grpc is not None:
            self._grpc.start()
        try:
            self._uvicorn.run(sockets=[self._socket])
        finally:
            if self._grpc is not None:
                self._grpc.stop()
            self._socket.close()

    def _grpc_server(self, address: str, port: int | None, max_request_bytes: int) -> Any:
        if port is None:
            return None
        from .grpc_server import GrpcServer

        return GrpcServer(
            self._model,
            name=self.name,
            version=self.version,
            address=f"{address}:{port}",
            max_request_bytes=max_request_bytes,
            workers=max(2, os.cpu_count() or 2),
        )

    @property
    def grpc_url(self) -> str | None:
        """The model's address for `grpc_client.GrpcClient`, None where gRPC is not served."""
        if self._grpc is None:
            return None
        host = self.url.split("/")[2].rsplit(":", 1)[0]
        return f"grpc://{host}:{self._grpc.port}/{quote(self.name)}"

    def stop(self) -> None:
        """Ask the server to finish; `run` returns when it has."""
        self._uvicorn.should_exit = True

    @property
    def started(self) -> bool:
        """Whether requests are answered now."""
        return self._uvicorn.started

    def banner(self) -> str:
        """Return what to tell the person who started it: URL, model, signatures, a call to try."""
        signatures = [
            f"  {name}: {', '.join(signature.inputs)} -> {', '.join(signature.outputs)}"
            for name, signature in self._model.signatures.items()
        ]
        return "\n".join(
            [
                f"Serving {self.name} version {self.version} at {self.url}",
                *([] if self._grpc is None else [f"  and over gRPC at {self.grpc_url}"]),
                *signatures,
                "Try it:",
                f"  {self._example_call()}",
                "Stop it with Ctrl+C.",
            ]
        )

    def _example_call(self) -> str:
        request: dict[str, Any] = read_manifest(self._model.folder.path).example_request
        default = self._model.signatures.get(DEFAULT_SIGNATURE)
        if not request and default and [s.dtype for s in default.inputs.values()] == ["string"]:
            request = {"instances": ["A lovely, moving film."]}
        if not request:
            return f"curl {self.url}/metadata"
        body = shlex.quote(json.dumps(request, ensure_ascii=False))
        return f"curl -d {body} {self.url}:predict"

    async def _handle(self, request: Request) -> Response:
        try:
            status, body = 200, await self._route(request)
        except RestError as error:
            status, body = error.status, encode_error(error.message)
        except ClientDisconnect:
            status, body = 499, encode_error("The client went away")
        except Exception as error:  # a fault of ours: tell the operator, keep serving
            traceback.print_exc(file=sys.stderr)
            status, body = 500, encode_error(f"{type(error).__name__}: {error}")
        return Response(body, status_code=status, media_type="application/json")

    async def _route(self, request: Request) -> bytes:
        path, method = request.scope["path"], request.method
        if not path.lower().startswith("/v1/"):
            raise RestError(404, f"Not found: {method} {path}; the API is under /v1/models")
        if method == "POST" and (match := _POST.fullmatch(path)):
            body = await self._read(request)
            if self._limiter is None:  # made here: it belongs to the running event loop
                self._limiter = anyio.CapacityLimiter(max(2, os.cpu_count() or 2))
            return await anyio.to_thread.run_sync(self._post, match, body, limiter=self._limiter)
        if method in ("GET", "HEAD") and (match := _GET.fullmatch(path)):
            return self._get(match)
        raise RestError(400, f"Malformed request: {method} {path}")

    async def _read(self, request: Request) -> bytes:
        body, size = bytearray(), 0
        async for chunk in request.stream():
            size += len(chunk)
            if size <= self._max_request_bytes:
                body += chunk
            elif size > 4 * self._max_request_bytes:
                break  # read on for a while: a client that still sends does not see the answer
        if size > self._max_request_bytes:
            raise RestError(
                413, f"The request is larger than {self._max_request_bytes} bytes; send fewer rows"
            )
        return bytes(body)

    def _post(self, match: re.Match[str], body: bytes) -> bytes:
        document = parse_body(body)
        name = requested_signature(document) or DEFAULT_SIGNATURE
        self._check_served(match)
        if match["verb"].lower() != "predict":
            raise RestError(501, f"{match['verb']} is not served here; use :predict")
        if name not in self._model.signatures:
            raise RestError(400, f'Serving signature name: "{name}" not found in signature def')
        inputs, rows = decode_inputs(document, signature=self._model.signatures[name])
        return encode_outputs(self._run(name, inputs), rows=rows)

    def _run(self, signature: str, inputs: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._model.run_arrays(signature, inputs)
        except Exception as error:
            code = getattr(error, "error_code", None)  # an error of the graph, not of ours
            if code is None:
                raise
            message = str(getattr(error, "message", error))
            raise RestError(_HTTP_STATUS.get(code, 500), message) from None

    def _get(self, match: re.Match[str]) -> bytes:
        if match["name"] is None:
            return self._listing()
        if match["metadata"]:
            self._check_served(match)
            return _json(self._metadata())
        if match["label"] is not None:
            self._check_served(match)
        if match["name"] != self.name:
            raise RestError(404, f"Could not find any versions of model {match['name']}")
        if not self._is_served(match):
            raise RestError(404, f"Could not find version {match['version']} of model {self.name}")
        state = {
            "version": str(self.version),
            "state": "AVAILABLE",
            "status": {"error_code": "OK", "error_message": ""},
        }
        return _json({"model_version_status": [state]})

    def _listing(self) -> bytes:
        """List the models; TF Serving has no such call, the shape is the OpenAI API's."""
        model = {
            "id": self.name,
            "object": "model",
            "owned_by": "llama-keras",
            "versions": [str(self.version)],
        }
        return _json({"object": "list", "data": [model]})

    def _metadata(self) -> dict[str, Any]:
        return {
            "model_spec": {
                "name": self.name,
                "signature_name": "",
                "version": str(self.version),
            },
            "metadata": {"signature_def": {"signature_def": self._model.info.metadata}},
        }

    def _check_served(self, match: re.Match[str]) -> None:
        if match["label"] is not None and match["name"] == self.name:
            raise RestError(400, f"Unrecognized servable version label: {match['label']}")
        if match["name"] != self.name or not self._is_served(match):
            name, version = match["name"], match["version"]
            wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise RestError(404, f"Servable not found for request: {wanted}")

    def _is_served(self, match: re.Match[str]) -> bool:
        if match["version"] is None:
            return True
        version = int(match["version"][:20])
        if version >= 2**63:
            raise RestError(400, f"Failed to convert version: {match['version']} to numeric.")
        return version == self.version


@contextmanager
def serve_in_background(directory: str | Path, *, port: int = 0, **options: Any) -> Iterator[str]:
    """Serve a model from a thread of this process while the block runs.

    Args:
        directory: what to serve, see `versions.find_model`.
        port: 0 takes a free one.
        **options: other arguments of `ModelServer`.

    Yields:
        The model's URL, for `client.predict`.
    """
    with running_server(directory, port=port, **options) as server:
        yield server.url


@contextmanager
def running_server(directory: str | Path, **options: Any) -> Iterator[ModelServer]:
    """Do as `serve_in_background`, but yield the server."""
    server = ModelServer(directory, **options)
    thread = threading.Thread(target=server.run, name="model-server", daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("The model server stopped before it had started.")
            thread.join(0.01)
        yield server
    finally:
        server.stop()
        thread.join()


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port < 2**16:
        raise InputError(f"A port is a number from 0 (a free one) to 65535; got {port}.")
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise InputError(f"--host {host} --port {port} is not an address: {error}.") from None
    # With the protocol named, asyncio turns Nagle's delay off; without it a reply takes 40 ms.
    listener = socket.socket(family, kind, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Listen at once, so that no other process can take the port while the model loads.
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise InputError(_why_no_port(host, port, error)) from None
    return listener


def _why_no_port(host: str, port: int, error: OSError) -> str:
    reasons = {
        errno.EADDRINUSE: f"Port {port} on {host} is taken by another program; stop it, or choose "
        "another port with --port (0 takes a free one).",
        errno.EACCES: f"Port {port} needs rights that this user lacks; choose one above 1023.",
        errno.EADDRNOTAVAIL: f"This machine has no address {host}; use --host 127.0.0.1.",
    }
    default = f"Cannot listen on {host} port {port}: {error}."
    return reasons.get(error.errno or 0, default)


def _json(value: Any) -> bytes:
    return f"{json.dumps(value, indent=1, ensure_ascii=False)}\n".encode()
