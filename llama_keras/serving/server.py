"""Serve SavedModels with TF Serving's REST and gRPC on this machine.

`llama-keras serve DIR` runs it; in a program: `with serve_in_background(DIR, port=0) as url: ...`.
Only TensorFlow and TF-Text run the models, none of this package's layers.
"""

import json
import shlex
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import quote

import uvicorn

from ..errors import InputError
from . import openai_routes, page
from .batching import Batching
from .http_app import Routes, make_app
from .limits import Access, Limits
from .listening import in_url, listen
from .local import SavedModel
from .served import Servable, ServedModels
from .signature_def import DEFAULT_SIGNATURE
from .versions import ModelSource, VersionPolicy, find_source

DEFAULT_PORT = 8501


class ModelServer:
    """Models, the ports they are served on, and the application between them.

    Args:
        directories: what to serve, one folder or several, see `versions.find_source`; or sources
            made by it.
        name: the name in URLs of a single model, by default its folder's.
        host: address to listen on; loopback unless told otherwise.
        port: 0 takes a free one.
        grpc_port: serve gRPC there, too (0: a free one); None does not.
        policy: which versions of each folder are served, by default the newest.
        labels: label to version, of a single model.
        limits: bounds; `max_request_bytes` alone may be given instead.
        access: token and TLS.
        batching: how requests are put together.
        poll_seconds: how often the folders are looked through for versions; 0 looks once.
        extra_routes: functions that give further routes of the models, by default OpenAI's API
            and the page.
        load: makes the model of a version's folder.

    Attributes:
        served: the models.
        url: the first model's URL, `http://HOST:PORT/v1/models/NAME`.
        app: the ASGI application.
        warning: what the person who starts it should know, None where all is well.

    Raises:
        InputError: no model there, none of its versions loads, the port is taken, or other
            machines could use it without a token.
    """

    def __init__(
        self,
        directories: str | Path | ModelSource | Sequence[str | Path | ModelSource],
        *,
        name: str | None = None,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        grpc_port: int | None = None,
        policy: VersionPolicy | None = None,
        labels: dict[str, int] | None = None,
        max_request_bytes: int | None = None,
        limits: Limits | None = None,
        access: Access | None = None,
        batching: Batching | None = None,
        poll_seconds: float = 1.0,
        extra_routes: Sequence[Routes] | None = None,
        load: Callable[[Path], SavedModel] = SavedModel,
    ):
        if isinstance(directories, str | Path | ModelSource):
            directories = [directories]
        if len(directories) > 1 and (name or labels):
            raise InputError(
                "A name or labels belong to one model; with several, write them in a file for "
                "--models-config."
            )
        sources = [
            folder
            if isinstance(folder, ModelSource)
            else find_source(folder, name=name, policy=policy, labels=labels)
            for folder in directories
        ]
        if limits is None:
            limits = Limits(
                **({"max_request_bytes": max_request_bytes} if max_request_bytes else {})
            )
        self._limits, self._access = limits, access or Access()
        self._socket = listen(host, port)
        try:
            self.warning = self._access.check_address(self._socket.getsockname()[0])
            self.served = ServedModels(
                sources,
                batching=batching,
                poll_seconds=poll_seconds,
                max_rows=limits.max_rows,
                timeout=limits.timeout,
                load=load,
            )
        except BaseException:
            self._socket.close()
            raise
        address = in_url(host)
        try:
            self._grpc = self._grpc_server(address, grpc_port)
        except BaseException:
            self._socket.close()
            self.served.close()
            raise
        self.name = sources[0].name
        scheme = "http" if self._access.tls_cert is None else "https"
        self._base = f"{scheme}://{address}:{self._socket.getsockname()[1]}"
        self.url = self._url(self.name)
        self._address = address
        if extra_routes is None:
            openai = partial(
                openai_routes.routes,
                max_request_bytes=limits.max_request_bytes,
                timeout=limits.timeout,
            )
            extra_routes = (openai, page.routes)
        self.app = make_app(
            self.served, limits=limits, access=self._access, extra_routes=extra_routes
        )
        self._stopping, self._drained = threading.Event(), False
        self._uvicorn = _Uvicorn(
            uvicorn.Config(
                self.app,
                log_level="error",
                access_log=False,
                lifespan="off",
                limit_concurrency=limits.max_connections,
                # Requests have ended by then: this is for connections that do not close.
                timeout_graceful_shutdown=2,
                ssl_certfile=self._access.tls_cert,
                ssl_keyfile=self._access.tls_key,
            ),
            stop=self.stop,
        )

    def run(self) -> bool:
        """Serve until `stop`, SIGINT or SIGTERM; requests in progress are answered first.

        Returns:
            Whether all were answered within `Limits.drain_seconds`.
        """
        self.served.start()
        if self._grpc is not None:
            self._grpc.start()
        stopper = threading.Thread(target=self._stop_when_asked, name="stopper", daemon=True)
        stopper.start()
        try:
            self._uvicorn.run(sockets=[self._socket])
        finally:
            self._stopping.set()
            stopper.join()
            if self._grpc is not None:
                self._grpc.stop(grace=2.0)
            self.served.close()
            self._socket.close()
        return self._drained

    def _stop_when_asked(self) -> None:
        """Answers what was begun while new requests are told to go elsewhere, then stops."""
        self._stopping.wait()
        self._drained = self.served.drain(self._limits.drain_seconds)
        if not self._drained:
            self.served.abandon()
        self._uvicorn.should_exit = True

    def _grpc_server(self, address: str, port: int | None) -> Any:
        if port is None:
            return None
        from .grpc_server import GrpcServer

        return GrpcServer(
            self.served, address=f"{address}:{port}", limits=self._limits, access=self._access
        )

    @property
    def grpc_url(self) -> str | None:
        """The first model's gRPC address for `client.Client`, None where gRPC is not served."""
        if self._grpc is None:
            return None
        scheme = "grpc" if self._access.tls_cert is None else "grpcs"
        return f"{scheme}://{self._address}:{self._grpc.port}/{quote(self.name)}"

    @property
    def version(self) -> int:
        """The newest version of the first model that answers now.

        Raises:
            Refused: none does.
        """
        with self.served.use(self.name) as servable:
            return servable.version

    def stop(self) -> None:
        """Ask the server to finish; `run` returns when it has."""
        self._stopping.set()

    @property
    def started(self) -> bool:
        """Whether requests are answered now."""
        return self._uvicorn.started

    def banner(self) -> str:
        """Return what to tell the person who started it: URLs, signatures, a call to try."""
        lines = []
        for name in self.served.names():
            with self.served.use(name) as servable:
                lines.append(f"Serving {name} version {servable.version} at {self._url(name)}")
                lines += [
                    f"  {key}: {', '.join(signature.inputs)} -> {', '.join(signature.outputs)}"
                    for key, signature in servable.model.signatures.items()
                ]
        if self.grpc_url is not None:
            lines.append(f"  and over gRPC at {self.grpc_url}")
        with self.served.use(self.name) as servable:
            lines += ["Try it:", f"  {self._example_call(servable)}"]
        lines.append(f"Or in a browser: {self._base}/")
        return "\n".join(
            [*lines, *([self.warning] if self.warning else []), "Stop it with Ctrl+C."]
        )

    def _url(self, name: str) -> str:
        return f"{self._base}/v1/models/{quote(name)}"

    def _example_call(self, servable: Servable) -> str:
        request: dict[str, Any] = servable.manifest.example_request
        default = servable.model.signatures.get(DEFAULT_SIGNATURE)
        if not request and default and [s.dtype for s in default.inputs.values()] == ["string"]:
            request = {"instances": ["A lovely, moving film."]}
        head = (
            "" if self._access.token is None else '-H "Authorization: Bearer $LLAMA_KERAS_TOKEN" '
        )
        if not request:
            return f"curl {head}{self.url}/metadata"
        body = shlex.quote(json.dumps(request, ensure_ascii=False))
        return f"curl {head}-d {body} {self.url}:predict"


class _Uvicorn(uvicorn.Server):
    """Uvicorn, but a signal drains the models first; a second one does not wait."""

    def __init__(self, config: uvicorn.Config, *, stop: Any):
        super().__init__(config)
        self._stop, self._signals = stop, 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Takes SIGINT and SIGTERM; stopping is not a failure, so they are not raised again."""
        self._signals += 1
        self._stop()
        if self._signals > 1:
            self.should_exit = self.force_exit = True


@contextmanager
def serve_in_background(
    directory: str | Path | Sequence[str | Path], *, port: int = 0, **options: Any
) -> Iterator[str]:
    """Serve models from a thread of this process while the block runs.

    Args:
        directory: what to serve, see `ModelServer`.
        port: 0 takes a free one.
        **options: other arguments of `ModelServer`.

    Yields:
        The first model's URL, for `client.predict`.
    """
    with running_server(directory, port=port, **options) as server:
        yield server.url


@contextmanager
def running_server(
    directory: str | Path | ModelSource | Sequence[str | Path | ModelSource], **options: Any
) -> Iterator[ModelServer]:
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
