"""A model behind TF Serving's gRPC, ours or the real one."""

from llama_keras.eval.targets.rest import RestTarget


class GrpcTarget(RestTarget):
    """One served model, by its address.

    Args:
        url: `grpc://HOST:PORT/NAME`, see `serving.client.AsyncClient`.
        retries, signature, timeout: see `RestTarget`.
    """

    kind = "grpc"
