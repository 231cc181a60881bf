"""`llama-keras serve`: a SavedModel over TF Serving's REST on this machine."""

from typing import Annotated

import typer

_LOOPBACK = ("127.", "localhost", "::1")


def register(app: typer.Typer) -> None:
    """Add the verb `serve` to the command line."""

    @app.command("serve")
    def serve(
        directory: Annotated[
            str, typer.Argument(help="NAME/, NAME/VERSION/ or a run directory with an export.")
        ],
        name: Annotated[
            str | None, typer.Option(help="Model name in URLs; by default the folder's.")
        ] = None,
        host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
        port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8501,
        grpc_port: Annotated[
            int | None, typer.Option(help="Serve gRPC on this port, too (TF Serving's is 8500).")
        ] = None,
        max_request_bytes: Annotated[int, typer.Option(help="Larger requests are refused.")] = 32
        * 2**20,
    ) -> None:
        """Serve an exported model with TF Serving's REST (predict, metadata, status)."""
        from ..serving.server import ModelServer

        server = ModelServer(
            directory,
            name=name,
            host=host,
            port=port,
            max_request_bytes=max_request_bytes,
            grpc_port=grpc_port,
        )
        print(server.banner(), flush=True)
        if not host.startswith(_LOOPBACK):
            print("Note: anyone who reaches this address can use the model; there is no login.")
        server.run()
        print("Stopped.")
