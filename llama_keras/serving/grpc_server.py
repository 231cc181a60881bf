"""TF Serving's gRPC services over one loaded SavedModel.

Codes and messages follow tensorflow_serving/servables/tensorflow/predict_util.cc and
model_servers/server_core.cc.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
from google.protobuf import json_format

from ..errors import InputError
from .grpc_messages import AVAILABLE, METHODS, SIGNATURE_MAP_URL, SIGNATURES, messages, serialized
from .local import SavedModel
from .signature_def import DEFAULT_SIGNATURE
from .tensor_proto import fill_tensor, read_tensor

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class _Refused(Exception):
    """A request that cannot be answered: a gRPC code and the message for the caller."""

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code, self.message = code, message


class GrpcServer:
    """Answers Predict, GetModelMetadata and GetModelStatus.

    Args:
        model: what to run.
        name: the model's name.
        version: the version served.
        address: `HOST:PORT`; port 0 takes a free one.
        max_request_bytes: larger requests are refused by gRPC.
        workers: requests that run at once.

    Attributes:
        port: that it listens on.

    Raises:
        InputError: the port is taken.
    """

    def __init__(
        self,
        model: SavedModel,
        *,
        name: str,
        version: int,
        address: str,
        max_request_bytes: int,
        workers: int = 2,
    ):
        self._model, self._name, self._version = model, name, version
        options = [
            ("grpc.max_receive_message_length", max_request_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ]
        self._server = grpc.server(ThreadPoolExecutor(workers, "grpc"), options=options)
        answers = {
            "Predict": self._predict,
            "GetModelMetadata": self._metadata,
            "GetModelStatus": self._status,
        }
        for service in set(METHODS.values()):
            methods = {m: _handler(m, answers[m]) for m, own in METHODS.items() if own == service}
            handlers = grpc.method_handlers_generic_handler(service, methods)
            self._server.add_generic_rpc_handlers((handlers,))
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError:
            self.port = 0
        if not self.port:
            raise InputError(f"gRPC cannot listen on {address}; choose another --grpc-port.")

    def start(self) -> None:
        """Begin to answer, in threads of its own."""
        self._server.start()

    def stop(self, grace: float = 15.0) -> None:
        """Finish what was begun, for at most `grace` seconds."""
        self._server.stop(grace).wait()

    def _predict(self, request: Any) -> Any:
        self._check_served(request.model_spec)
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        if name not in self._model.signatures:
            raise _Refused(
                grpc.StatusCode.FAILED_PRECONDITION,
                f'Serving signature key "{name}" not found.',
            )
        signature = self._model.signatures[name]
        outputs = self._run(name, self._inputs(request, signature.inputs))
        wanted = list(request.output_filter) or sorted(outputs)
        if unknown := [output for output in wanted if output not in outputs]:
            raise _Refused(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"output tensor alias not found in signature: {unknown[0]} Outputs expected to be "
                f"in the set {{{','.join(sorted(outputs))}}}.",
            )
        answer = messages()["PredictResponse"](model_spec=self._spec(name))
        for output in wanted:
            dtype = signature.outputs[output].dtype
            fill_tensor(answer.outputs[output], outputs[output], dtype=dtype)
        return answer

    def _inputs(self, request: Any, specs: dict[str, Any]) -> dict[str, np.ndarray]:
        if request.inputs.keys() != specs.keys():
            raise _Refused(
                grpc.StatusCode.INVALID_ARGUMENT,
                "input size does not match signature: "
                f"{len(request.inputs)}!={len(specs)} len({{{','.join(sorted(request.inputs))}}}) "
                f"!= len({{{','.join(sorted(specs))}}}).",
            )
        arrays = {}
        for name, spec in specs.items():
            try:
                array = read_tensor(request.inputs[name])
            except InputError as error:
                raise _Refused(grpc.StatusCode.INVALID_ARGUMENT, f"{name}: {error}") from None
            wanted = np.dtype(object) if spec.dtype == "string" else _numpy(spec)
            if array.dtype != wanted or not spec.accepts(array.shape):
                raise _Refused(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"{name}: expected {spec.dtype} of the shape {spec.shape} (-1: any size), got "
                    f"{array.dtype} of the shape {array.shape}",
                )
            arrays[name] = array
        return arrays

    def _run(self, name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            return self._model.run_arrays(name, inputs)
        except Exception as error:
            code = getattr(error, "error_code", None)  # an error of the graph, not of ours
            if code not in _CODES:
                raise
            raise _Refused(_CODES[code], str(getattr(error, "message", error))) from None

    def _metadata(self, request: Any) -> Any:
        self._check_served(request.model_spec)
        if list(request.metadata_field) != [SIGNATURES]:
            raise _Refused(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"Metadata field {', '.join(request.metadata_field) or '(none)'} is not supported",
            )
        table = messages()["SignatureDefMap"]()
        for name, definition in self._model.info.metadata.items():
            json_format.ParseDict(definition, table.signature_def[name], ignore_unknown_fields=True)
        answer = messages()["GetModelMetadataResponse"](model_spec=self._spec())
        answer.metadata[SIGNATURES].type_url = SIGNATURE_MAP_URL
        answer.metadata[SIGNATURES].value = table.SerializeToString()
        return answer

    def _status(self, request: Any) -> Any:
        self._check_served(request.model_spec)
        answer = messages()["GetModelStatusResponse"]()
        answer.model_version_status.add(version=self._version, state=AVAILABLE)
        return answer

    def _spec(self, signature: str = "") -> Any:
        spec = messages()["ModelSpec"](name=self._name, signature_name=signature)
        spec.version.value = self._version
        return spec

    def _check_served(self, spec: Any) -> None:
        if not spec.name:
            raise _Refused(grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")
        version = spec.version.value if spec.HasField("version") else None
        if spec.version_label and spec.name == self._name:
            text = f"Unrecognized servable version label: {spec.version_label}"
            raise _Refused(grpc.StatusCode.INVALID_ARGUMENT, text)
        if spec.name != self._name or version not in (None, self._version):
            latest = f"Latest({spec.name})"
            wanted = latest if version is None else f"Specific({spec.name}, {version})"
            text = f"Servable not found for request: {wanted}"
            raise _Refused(grpc.StatusCode.NOT_FOUND, text)


def _handler(method: str, answer: Callable[[Any], Any]) -> grpc.RpcMethodHandler:
    def handle(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return answer(request)
        except _Refused as refused:
            context.abort(refused.code, refused.message)

    return grpc.unary_unary_rpc_method_handler(
        handle,
        request_deserializer=messages()[f"{method}Request"].FromString,
        response_serializer=serialized,
    )


def _numpy(spec: Any) -> np.dtype:
    from .local import numpy_type

    return np.dtype(numpy_type(spec.dtype))
