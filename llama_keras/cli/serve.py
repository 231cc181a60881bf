"""`llama-keras serve`: SavedModels over TF Serving's REST and gRPC on this machine."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer


def register(app: typer.Typer) -> None:
    """Add the verb `serve` to the command line."""

    @app.command("serve")
    def serve(
        directories: Annotated[
            list[str] | None,
            typer.Argument(
                metavar="DIR...", help="NAME/, NAME/VERSION/ or a run directory with an export."
            ),
        ] = None,
        models_config: Annotated[
            Path | None, typer.Option(help="TF Serving's models.config, instead of folders.")
        ] = None,
        name: Annotated[
            str | None, typer.Option(help="Model name in URLs; by default the folder's.")
        ] = None,
        host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
        port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8501,
        grpc_port: Annotated[
            int | None, typer.Option(help="Serve gRPC on this port, too (TF Serving's is 8500).")
        ] = None,
        version_policy: Annotated[
            str, typer.Option(help="latest, latest:N, all or specific:1,2.")
        ] = "latest:1",
        label: Annotated[
            list[str] | None, typer.Option(help="Name a version: stable=1; several with commas.")
        ] = None,
        poll_seconds: Annotated[
            float, typer.Option(help="Look for new versions so often; 0 looks once.")
        ] = 1.0,
        batching: Annotated[
            bool, typer.Option(help="Run requests that wait at the same time together.")
        ] = True,
        max_batch_size: Annotated[int, typer.Option(help="Rows run together.")] = 32,
        batch_timeout_micros: Annotated[
            int, typer.Option(help="Microseconds that a request waits for company.")
        ] = 0,
        max_enqueued_batches: Annotated[
            int, typer.Option(help="Batches that may wait; beyond, requests are refused.")
        ] = 128,
        batch_threads: Annotated[
            int | None, typer.Option(help="Batches run at once; by default one per core.")
        ] = None,
        batching_config: Annotated[
            Path | None, typer.Option(help="TF Serving's batching.config, instead of the above.")
        ] = None,
        max_request_bytes: Annotated[int, typer.Option(help="Larger requests are refused.")] = 32
        * 2**20,
        max_rows: Annotated[int, typer.Option(help="Rows of one request.")] = 4096,
        timeout: Annotated[float, typer.Option(help="Seconds for one answer.")] = 60.0,
        max_connections: Annotated[int, typer.Option(help="Connections at once.")] = 1000,
        drain_seconds: Annotated[
            float, typer.Option(help="Let begun requests run so long when stopping.")
        ] = 30.0,
        tls_cert: Annotated[Path | None, typer.Option(help="PEM file of the certificate.")] = None,
        tls_key: Annotated[Path | None, typer.Option(help="PEM file of its key.")] = None,
        token_file: Annotated[
            Path | None,
            typer.Option(help="File with the token to ask for; or the variable LLAMA_KERAS_TOKEN."),
        ] = None,
        insecure: Annotated[
            bool, typer.Option("--insecure", help="Serve other machines without a token.")
        ] = False,
    ) -> None:
        """Serve exported models over TF Serving's REST and gRPC, OpenAI's API and a page."""
        from ..errors import InputError
        from ..serving.batching import Batching
        from ..serving.limits import Access, Limits, read_token
        from ..serving.models_config import read_batching_config, read_models_config
        from ..serving.server import ModelServer
        from ..serving.versions import VersionPolicy, parse_labels

        if bool(directories) == bool(models_config):
            raise InputError("Give folders to serve, or --models-config FILE, one of them.")
        if models_config and (name or label or version_policy != "latest:1"):
            raise InputError(
                "--models-config says names, labels and versions itself; leave them out."
            )
        if batching_config and not batching:
            raise InputError("Give --no-batching or --batching-config, not both.")
        threads: dict[str, Any] = (
            {} if batch_threads is None else {"num_batch_threads": batch_threads}
        )
        server = ModelServer(
            read_models_config(models_config) if models_config else directories or [],
            name=name,
            host=host,
            port=port,
            grpc_port=grpc_port,
            policy=VersionPolicy.parse(version_policy),
            labels=parse_labels(label or []),
            limits=Limits(
                max_request_bytes=max_request_bytes,
                max_rows=max_rows,
                timeout=timeout,
                max_connections=max_connections,
                drain_seconds=drain_seconds,
            ),
            access=Access(
                token=read_token(token_file), tls_cert=tls_cert, tls_key=tls_key, insecure=insecure
            ),
            batching=read_batching_config(batching_config)
            if batching_config
            else Batching(
                enabled=batching,
                max_batch_size=max_batch_size,
                batch_timeout_micros=batch_timeout_micros,
                max_enqueued_batches=max_enqueued_batches,
                **threads,
            ),
            poll_seconds=poll_seconds,
        )
        print(server.banner(), flush=True)
        if server.run():
            print("Stopped.")
            return
        print("Stopped; requests that took longer than --drain-seconds were cut off.", flush=True)
        os._exit(0)  # a graph that still runs would keep the process
