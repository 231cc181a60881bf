"""A model behind TF Serving's gRPC, ours or the real one."""

from llama_keras.eval.targets.rest import RestTarget


class GrpcTarget(RestTarget):
    """One served model, by its address.

    Args:
        url: `grpc://HOST:PORT/NAME`, see `serving.grpc_client.GrpcClient`.
        retries, timeout: see `RestTarget`.
    """

    kind = "grpc"

    def _connect(self, url: str, timeout: float):
        from llama_keras.serving.grpc_client import GrpcClient

        return GrpcClient(url, timeout=timeout)

    def _names(self) -> tuple[str, ...]:
        return tuple(self._first(self._client.signatures))
