"""A model behind TF Serving's gRPC, ours or the real one."""

from llama_keras.eval.targets.rest import RestTarget
from llama_keras.eval.targets.retries import with_retries


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
        return tuple(with_retries(self._client.signatures, retries=self._retries))
