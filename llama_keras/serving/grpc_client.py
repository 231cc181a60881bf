"""Ask a model served over TF Serving's gRPC; needs neither TensorFlow nor generated code."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import grpc
import numpy as np

from ..errors import InputError
from .client import ServingError
from .grpc_messages import METHODS, SIGNATURES, messages, serialized
from .signature_def import DEFAULT_SIGNATURE, TensorSpec
from .tensor_proto import fill_tensor, read_tensor

MAX_MESSAGE_BYTES = 256 * 2**20
# gRPC's codes in the words of HTTP, for programs that ask over both.
_HTTP = {
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
}


class GrpcClient:
    """A connection to one served model, kept open between requests.

    Args:
        target: `grpc://HOST:PORT/NAME`, perhaps with `/versions/V` behind it.
        timeout: seconds to wait for one answer.

    Raises:
        InputError: `target` is no such address.
    """

    def __init__(self, target: str, *, timeout: float = 60.0):
        parts = urlsplit(target)
        path = [part for part in parts.path.split("/") if part]
        versioned = len(path) == 3 and path[1] == "versions" and path[2].isdigit()
        if parts.scheme != "grpc" or not parts.netloc or not (len(path) == 1 or versioned):
            raise InputError(
                f"{target!r} is no address of a gRPC model; write grpc://HOST:PORT/NAME."
            )
        self.url, self.name, self._timeout = target, path[0], timeout
        self._version = int(path[2]) if versioned else None
        sizes = [
            (f"grpc.max_{way}_message_length", MAX_MESSAGE_BYTES) for way in ("send", "receive")
        ]
        self._channel = grpc.insecure_channel(parts.netloc, options=sizes)
        self._specs: dict[str, dict[str, TensorSpec]] | None = None

    def run(self, signature: str, columns: Mapping[str, Sequence[Any]]) -> dict[str, np.ndarray]:
        """Return the outputs of a signature by name; strings as `bytes` (dtype object).

        Args:
            signature: its name.
            columns: input name to values.

        Raises:
            ServingError: no connection, no answer in time, or an error of the server.
            InputError: the values do not fit the signature.
        """
        specs = self.inputs(signature)
        request = messages()["PredictRequest"](model_spec=self._spec(signature))
        for name, values in columns.items():
            if name not in specs:
                raise InputError(f"{self.url}, {signature}: no input {name!r}; it has {[*specs]}.")
            dtype = specs[name].dtype
            fill_tensor(request.inputs[name], _array(values, dtype), dtype=dtype)
        answer = self._call("Predict", request)
        return {name: read_tensor(answer.outputs[name]) for name in sorted(answer.outputs)}

    def signatures(self) -> dict[str, dict[str, TensorSpec]]:
        """Return the inputs of each signature.

        Raises:
            ServingError: no connection, no answer in time, or an error of the server.
        """
        if self._specs is None:
            from .signature_def import specs_of

            request = messages()["GetModelMetadataRequest"](
                model_spec=self._spec(), metadata_field=[SIGNATURES]
            )
            packed = self._call("GetModelMetadata", request).metadata[SIGNATURES]
            table = messages()["SignatureDefMap"].FromString(packed.value)
            self._specs = {
                name: specs_of(table.signature_def[name].inputs)
                for name in sorted(table.signature_def)
                if not name.startswith("__")
            }
        return self._specs

    def inputs(self, signature: str) -> dict[str, TensorSpec]:
        """Return the inputs of a signature; raise `InputError` where there is none of its name."""
        known = self.signatures()
        name = signature or DEFAULT_SIGNATURE
        if name not in known:
            raise InputError(f"{self.url} has no signature {name!r}; it has {list(known)}.")
        return known[name]

    def status(self) -> list[dict[str, int]]:
        """Return version and state of each version, as TF Serving's status call gives them."""
        answer = self._call(
            "GetModelStatus", messages()["GetModelStatusRequest"](model_spec=self._spec())
        )
        return [{"version": v.version, "state": v.state} for v in answer.model_version_status]

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _spec(self, signature: str = "") -> Any:
        spec = messages()["ModelSpec"](name=self.name, signature_name=signature)
        if self._version is not None:
            spec.version.value = self._version
        return spec

    def _call(self, method: str, request: Any) -> Any:
        call = self._channel.unary_unary(
            f"/{METHODS[method]}/{method}",
            request_serializer=serialized,
            response_deserializer=messages()[f"{method}Response"].FromString,
        )
        try:
            return call(request, timeout=self._timeout)
        except grpc.RpcError as error:
            code, details = error.code(), error.details()  # type: ignore[attr-defined]
            status = _HTTP.get(code, 500)
            if status == 503:
                hint = f"No connection to {self.url} ({details})."
                raise ServingError(hint, status=status) from None
            text = f"{self.url} answered {code.name}: {details}"
            raise ServingError(text, status=status) from None


def _array(values: Sequence[Any], dtype: str) -> np.ndarray:
    from .local import as_array

    return as_array(values, dtype)
