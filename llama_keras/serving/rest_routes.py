"""TF Serving's REST for what is served: predict, classify, regress, metadata and status.

Paths, bodies and status codes are those of https://www.tensorflow.org/tfx/serving/api_rest.
"""

import asyncio
import json
import re
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from anyio import to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from .examples import as_input, check_verb, classes_of, examples_of, values_of
from .http_body import TooLargeError, read_body
from .limits import Limits
from .refused import Refused
from .rest import (
    RestError,
    decode_inputs,
    encode_error,
    encode_outputs,
    parse_body,
    requested_signature,
)
from .served import Servable, ServedModels, VersionState
from .signature_def import DEFAULT_SIGNATURE
from .wanted import while_wanted

_VERSION = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_POST = re.compile(rf"(?i)/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<verb>predict|classify|regress)")
_GET = re.compile(rf"(?i)/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?P<metadata>/metadata)?")
# Bodies and answers beyond this are turned in a thread: the loop serves the others meanwhile.
_INLINE_BYTES, _INLINE_VALUES = 64 * 1024, 4096
# Statuses after which asking again later makes sense.
_RETRY = {429: "1", 503: "1"}
_Made = TypeVar("_Made")


class RestRoutes:
    """Answers every path that nothing else answers.

    Args:
        served: what is asked.
        limits: sizes and times.
    """

    def __init__(self, served: ServedModels, *, limits: Limits):
        self._served, self._limits = served, limits

    async def handle(self, request: Request) -> Response:
        """Gives the answer to a request; never raises."""
        try:
            status, body = 200, await self._route(request)
        except RestError as error:
            status, body = error.status, encode_error(error.message)
        except Refused as refused:
            status, body = refused.http_status, encode_error(refused.message)
        except ClientDisconnect:
            status, body = 499, encode_error("The client went away")
        except Exception as error:  # a fault of ours: tell the operator, keep serving
            traceback.print_exc(file=sys.stderr)
            status, body = 500, encode_error(f"{type(error).__name__}: {error}")
        headers = {"Retry-After": _RETRY[status]} if status in _RETRY else None
        return Response(body, status, headers, media_type="application/json")

    async def _route(self, request: Request) -> bytes:
        path, method = request.scope["path"], request.method
        if not path.lower().startswith("/v1/"):
            raise RestError(404, f"Not found: {method} {path}; the API is under /v1/models")
        if method == "POST" and (match := _POST.fullmatch(path)):
            body = await _read(request, limits=self._limits)
            verb = self._predict if match["verb"].lower() == "predict" else self._classify
            return await verb(request, match, body)
        if method in ("GET", "HEAD") and (match := _GET.fullmatch(path)):
            return self._get(match)
        raise RestError(400, f"Malformed request: {method} {path}")

    async def _predict(self, request: Request, match: re.Match[str], body: bytes) -> bytes:
        document = await _made(len(body) <= _INLINE_BYTES, parse_body, body)
        name = requested_signature(document) or DEFAULT_SIGNATURE
        with self._use(match) as servable:
            signature = servable.model.signatures.get(name)
            if signature is None:
                raise RestError(400, f'Serving signature name: "{name}" not found in signature def')
            inputs, rows = await _made(
                len(body) <= _INLINE_BYTES, lambda: decode_inputs(document, signature=signature)
            )
            outputs = await self._run(request, servable, name, inputs)
        small = sum(array.size for array in outputs.values()) <= _INLINE_VALUES
        return await _made(small, lambda: encode_outputs(outputs, rows=rows))

    async def _classify(self, request: Request, match: re.Match[str], body: bytes) -> bytes:
        verb = match["verb"].lower()
        document = await _made(len(body) <= _INLINE_BYTES, parse_body, body)
        name = requested_signature(document) or DEFAULT_SIGNATURE
        examples = await _made(len(body) <= _INLINE_BYTES, examples_of, document)
        with self._use(match) as servable:
            signature = servable.model.signatures.get(name)
            if signature is None:
                raise RestError(400, f"No signature was found with the name: {name}")
            check_verb(signature, verb)
            outputs = await self._run(request, servable, name, as_input(examples))
        taken = classes_of if verb == "classify" else values_of
        return _json({"results": taken(outputs, len(examples))})

    async def _run(
        self, request: Request, servable: Servable, name: str, inputs: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        timeout = self._limits.timeout
        future = self._served.submit(servable, name, inputs, timeout=timeout)
        return await while_wanted(request, asyncio.wrap_future(future))

    def _get(self, match: re.Match[str]) -> bytes:
        if match["name"] is None:
            return self._listing()
        if match["metadata"]:
            with self._use(match) as servable:
                return _json(_metadata(servable))
        version = _version(match)
        if match["label"] is not None:
            with self._use(match) as servable:
                version = servable.version
        states = self._served.states(match["name"])
        if version is not None:
            states = [state for state in states if state.version == version]
            if not states:
                text = f"Could not find version {version} of model {match['name']}"
                raise RestError(404, text)
        return _json({"model_version_status": [_status(state) for state in states]})

    def _listing(self) -> bytes:
        """List the models; TF Serving has no such call, the shape is the OpenAI API's."""
        models = [
            {
                "id": name,
                "object": "model",
                "created": 0,
                "owned_by": "llama-keras",
                "versions": [
                    str(state.version)
                    for state in self._served.states(name)
                    if state.state == "AVAILABLE"
                ],
            }
            for name in self._served.names()
        ]
        return _json({"object": "list", "data": models})

    def _use(self, match: re.Match[str]):
        return self._served.use(match["name"], version=_version(match), label=match["label"])


async def _read(request: Request, *, limits: Limits) -> bytes:
    most, timeout = limits.max_request_bytes, limits.timeout
    try:
        return await read_body(request, most=most, timeout=timeout)
    except TimeoutError:
        raise RestError(408, f"The request did not arrive within {timeout:g} seconds") from None
    except TooLargeError:
        text = f"The request is larger than {most} bytes; send fewer rows"
        raise RestError(413, text) from None


async def _made(inline: bool, function: Callable[..., _Made], *arguments: Any) -> _Made:
    if inline:
        return function(*arguments)
    run: Callable[..., Awaitable[_Made]] = to_thread.run_sync
    return await run(function, *arguments)


def _version(match: re.Match[str]) -> int | None:
    if match["version"] is None:
        return None
    version = int(match["version"][:20])
    if version >= 2**63:
        raise RestError(400, f"Failed to convert version: {match['version']} to numeric.")
    return version


def _metadata(servable: Servable) -> Mapping[str, Any]:
    return {
        "model_spec": {
            "name": servable.name,
            "signature_name": "",
            "version": str(servable.version),
        },
        "metadata": {"signature_def": {"signature_def": servable.model.info.metadata}},
    }


def _status(state: VersionState) -> Mapping[str, Any]:
    return {
        "version": str(state.version),
        "state": state.state,
        "status": {"error_code": state.error_code, "error_message": state.error_message},
    }


def _json(value: Any) -> bytes:
    return f"{json.dumps(value, indent=2, ensure_ascii=False)}\n".encode("utf-8", "replace")
