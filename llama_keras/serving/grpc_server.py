"""TF Serving's gRPC services, and gRPC's health check, for what is served.

Codes and messages follow tensorflow_serving/servables/tensorflow/predict_util.cc and
model_servers/server_core.cc; health: https://github.com/grpc/grpc/blob/master/doc/health-checking.md.
"""

import sys
import traceback
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf import json_format

from ..errors import InputError
from .examples import as_input, check_verb, classes_of, values_of
from .grpc_messages import (
    METHODS,
    NOT_SERVING,
    SERVING,
    SIGNATURE_MAP_URL,
    SIGNATURES,
    messages,
    serialized,
)
from .limits import Access, Limits
from .local import numpy_type
from .model_versions import STATES
from .refused import CODES, Refused
from .served import Servable, ServedModels
from .signature_def import DEFAULT_SIGNATURE, TensorSpec
from .tensor_proto import fill_tensor, read_tensor

# Calls that wait for the model at once, a thread each; the model's own threads are the batcher's.
_SPARE = 8
_HEALTH = "grpc.health.v1.Health"


class GrpcServer:
    """Answers Predict, Classify, Regress, GetModelMetadata, GetModelStatus and Check.

    Args:
        served: what is asked.
        address: `HOST:PORT`; port 0 takes a free one.
        limits: sizes and times.
        access: token and TLS.

    Attributes:
        port: that it listens on.

    Raises:
        InputError: the port is taken, or the TLS files are not what they should be.
    """

    def __init__(self, served: ServedModels, *, address: str, limits: Limits, access: Access):
        self._served, self._limits, self._access = served, limits, access
        options = [
            ("grpc.max_receive_message_length", limits.max_request_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ]
        self._server = grpc.server(
            # Some more than calls may wait: a health check never stands behind them.
            ThreadPoolExecutor(limits.max_connections + _SPARE, "grpc"),
            options=options,
            maximum_concurrent_rpcs=limits.max_connections,
        )
        answers = {
            "Predict": self._predict,
            "Classify": self._classify,
            "Regress": self._regress,
            "GetModelMetadata": self._metadata,
            "GetModelStatus": self._status,
            "HandleReloadConfigRequest": self._reload,
            "Check": self._check,
        }
        for service in set(METHODS.values()):
            methods = {
                method: self._handler(method, answers[method])
                for method, own in METHODS.items()
                if own == service
            }
            handlers = grpc.method_handlers_generic_handler(service, methods)
            self._server.add_generic_rpc_handlers((handlers,))
        self.port = self._listen(address)
        if not self.port:
            raise InputError(f"gRPC cannot listen on {address}; choose another --grpc-port.")

    def start(self) -> None:
        """Begin to answer, in threads of its own."""
        self._server.start()

    def stop(self, grace: float = 15.0) -> None:
        """Finish what was begun, for at most `grace` seconds."""
        self._server.stop(grace).wait()

    def _listen(self, address: str) -> int:
        cert, key = self._access.tls_cert, self._access.tls_key
        try:
            if cert is None or key is None:
                return self._server.add_insecure_port(address)
            pair = (Path(key).read_bytes(), Path(cert).read_bytes())
            return self._server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        except RuntimeError:
            return 0

    def _handler(self, method: str, answer: Callable[[Any, Any], Any]) -> grpc.RpcMethodHandler:
        count = self._served.metrics.response_sent

        def handle(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                if METHODS[method] != _HEALTH:
                    self._check_token(context)
                response = answer(request, context)
            except Refused as refused:
                error = refused
            except CancelledError:
                error = Refused("CANCELLED", "The caller went away")
            except Exception as fault:  # a fault of ours: tell the operator, keep serving
                traceback.print_exc(file=sys.stderr)
                error = Refused("INTERNAL", f"{type(fault).__name__}: {fault}")
            else:
                count("grpc", "OK")
                return response
            count("grpc", error.code)
            context.abort(grpc.StatusCode[error.code], error.message)

        return grpc.unary_unary_rpc_method_handler(
            handle,
            request_deserializer=messages()[f"{method}Request"].FromString,
            response_serializer=serialized,
        )

    def _check_token(self, context: grpc.ServicerContext) -> None:
        if self._access.token is None:
            return
        given = [value for key, value in context.invocation_metadata() if key == "authorization"]
        if len(given) != 1 or not self._access.allows(str(given[0])):
            raise Refused(
                "UNAUTHENTICATED", "Missing or wrong token; send authorization: Bearer TOKEN"
            )

    def _predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self._use(request.model_spec) as servable:
            name = request.model_spec.signature_name or DEFAULT_SIGNATURE
            if name not in servable.model.signatures:
                text = f'Serving signature key "{name}" not found.'
                raise Refused("FAILED_PRECONDITION", text)
            signature = servable.model.signatures[name]
            inputs = _inputs(request, signature.inputs)
            wanted = _wanted(list(request.output_filter), signature.outputs)
            outputs = self._run(context, servable, name, inputs)
            answer = messages()["PredictResponse"](model_spec=_spec(servable, name))
        for output in wanted:
            dtype = signature.outputs[output].dtype
            fill_tensor(answer.outputs[output], outputs[output], dtype=dtype)
        return answer

    def _classify(self, request: Any, context: grpc.ServicerContext) -> Any:
        answer = messages()["ClassifyResponse"]()
        outputs, rows = self._run_examples(request, context, answer, verb="classify")
        for row in classes_of(outputs, rows):
            found = answer.result.classifications.add()
            for label, score in row:
                found.classes.add(label=label, score=score)
        return answer

    def _regress(self, request: Any, context: grpc.ServicerContext) -> Any:
        answer = messages()["RegressResponse"]()
        outputs, rows = self._run_examples(request, context, answer, verb="regress")
        for value in values_of(outputs, rows):
            answer.result.regressions.add(value=value)
        return answer

    def _run_examples(
        self, request: Any, context: grpc.ServicerContext, answer: Any, *, verb: str
    ) -> tuple[dict[str, np.ndarray], int]:
        listed = request.input.example_list_with_context
        examples = [listed.context + example for example in listed.examples]
        examples = examples or list(request.input.example_list.examples)
        with self._use(request.model_spec) as servable:
            name = request.model_spec.signature_name or DEFAULT_SIGNATURE
            if name not in servable.model.signatures:
                text = f"No signature was found with the name: {name}"
                raise Refused("INVALID_ARGUMENT", text)
            check_verb(servable.model.signatures[name], verb)
            if not examples:
                raise Refused("INVALID_ARGUMENT", "Input is empty.")
            answer.model_spec.CopyFrom(_spec(servable, name))
            return self._run(context, servable, name, as_input(examples)), len(examples)

    def _run(
        self,
        context: grpc.ServicerContext,
        servable: Servable,
        name: str,
        inputs: dict[str, np.ndarray],
    ) -> dict[str, np.ndarray]:
        timeout, left = self._limits.timeout, context.time_remaining()
        timeout = timeout if left is None else min(timeout, max(left, 0.0))
        future = self._served.submit(servable, name, inputs, timeout=timeout)

        def drop() -> None:
            future.cancel()

        if not context.add_callback(drop):
            future.cancel()  # the caller has gone already
        return future.result()

    def _metadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self._use(request.model_spec) as servable:
            if list(request.metadata_field) != [SIGNATURES]:
                fields = ", ".join(request.metadata_field) or "(none)"
                raise Refused("INVALID_ARGUMENT", f"Metadata field {fields} is not supported")
            table = messages()["SignatureDefMap"]()
            for name, definition in servable.model.info.metadata.items():
                json_format.ParseDict(
                    definition, table.signature_def[name], ignore_unknown_fields=True
                )
            answer = messages()["GetModelMetadataResponse"](model_spec=_spec(servable))
        answer.metadata[SIGNATURES].type_url = SIGNATURE_MAP_URL
        answer.metadata[SIGNATURES].value = table.SerializeToString()
        return answer

    def _status(self, request: Any, context: grpc.ServicerContext) -> Any:
        spec = request.model_spec
        if not spec.name:
            raise Refused("INVALID_ARGUMENT", "Missing ModelSpec")
        states = self._served.states(spec.name)
        version = spec.version.value if spec.HasField("version") else None
        if spec.version_label:
            with self._use(spec) as servable:
                version = servable.version
        answer = messages()["GetModelStatusResponse"]()
        for state in states:
            if version in (None, state.version):
                found = answer.model_version_status.add(
                    version=state.version, state=STATES[state.state]
                )
                found.status.error_code = CODES.index(state.error_code)
                found.status.error_message = state.error_message
        if not answer.model_version_status:
            text = f"Could not find version {version} of model {spec.name}"
            raise Refused("NOT_FOUND", text)
        return answer

    def _reload(self, request: Any, context: grpc.ServicerContext) -> Any:
        raise Refused(
            "UNIMPLEMENTED",
            "The models are chosen when the server starts; new versions of them are found by "
            "themselves. Start it again with other folders or another --models-config",
        )

    def _check(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.service not in ("", *METHODS.values()):
            raise Refused("NOT_FOUND", f"Unknown service {request.service}")
        status = SERVING if self._served.ready else NOT_SERVING
        return messages()["CheckResponse"](status=status)

    def _use(self, spec: Any):
        if not spec.name:
            raise Refused("INVALID_ARGUMENT", "Missing ModelSpec")
        version = spec.version.value if spec.HasField("version") else None
        return self._served.use(spec.name, version=version, label=spec.version_label or None)


def _inputs(request: Any, specs: dict[str, TensorSpec]) -> dict[str, np.ndarray]:
    if request.inputs.keys() != specs.keys():
        raise Refused(
            "INVALID_ARGUMENT",
            "input size does not match signature: "
            f"{len(request.inputs)}!={len(specs)} len({{{','.join(sorted(request.inputs))}}}) "
            f"!= len({{{','.join(sorted(specs))}}}).",
        )
    arrays = {}
    for name, spec in specs.items():
        try:
            array = read_tensor(request.inputs[name])
        except (InputError, ValueError, OverflowError) as error:
            raise Refused("INVALID_ARGUMENT", f"{name}: {error}") from None
        wanted = np.dtype(object) if spec.dtype == "string" else np.dtype(numpy_type(spec.dtype))
        if array.dtype != wanted or not spec.accepts(array.shape):
            raise Refused(
                "INVALID_ARGUMENT",
                f"{name}: expected {spec.dtype} of the shape {spec.shape} (-1: any size), got "
                f"{array.dtype} of the shape {array.shape}",
            )
        arrays[name] = array
    return arrays


def _wanted(names: list[str], specs: dict[str, TensorSpec]) -> list[str]:
    if unknown := [name for name in names if name not in specs]:
        raise Refused(
            "INVALID_ARGUMENT",
            f"output tensor alias not found in signature: {unknown[0]} Outputs expected to be "
            f"in the set {{{','.join(sorted(specs))}}}.",
        )
    return names or sorted(specs)


def _spec(servable: Servable, signature: str = "") -> Any:
    spec = messages()["ModelSpec"](name=servable.name, signature_name=signature)
    spec.version.value = servable.version
    return spec
