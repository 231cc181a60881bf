"""Counts of what a server does, for Prometheus (https://prometheus.io).

Each server has a registry of its own, so that two servers in one process do not add up.
"""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_MODEL = ("model", "signature")


class Metrics:
    """What is counted: requests, their time, rows and batches, the queue, and versions."""

    def __init__(self):
        self.registry = CollectorRegistry()
        made = {"registry": self.registry, "namespace": "llama_keras"}
        self._requests = Counter(
            "requests", "Requests by signature and gRPC code.", (*_MODEL, "code"), **made
        )
        self._responses = Counter(
            "responses", "Responses by protocol and its own code.", ("protocol", "code"), **made
        )
        self._seconds = Histogram(
            "request_seconds",
            "Seconds from the queue's entrance to the answer.",
            _MODEL,
            buckets=_SECONDS,
            **made,
        )
        self._rows = Counter("rows", "Rows answered.", _MODEL, **made)
        self._batch_rows = Histogram(
            "batch_rows", "Rows run at once.", _MODEL, buckets=_ROWS, **made
        )
        self._run_seconds = Histogram(
            "run_seconds", "Seconds that one batch ran.", _MODEL, buckets=_SECONDS, **made
        )
        self._queue = Gauge("queue_rows", "Rows that wait.", _MODEL, **made)
        self._dropped = Counter(
            "dropped", "Requests dropped before they ran: nobody waited any more.", _MODEL, **made
        )
        self._versions = Gauge(
            "version_available", "1 where a version answers.", ("model", "version"), **made
        )
        self._known: set[tuple[str, str]] = set()

    def request_done(
        self, model: str, signature: str, *, code: str, seconds: float, rows: int
    ) -> None:
        """Counts a request that went through the queue, or was refused by it."""
        self._requests.labels(model, signature, code).inc()
        self._seconds.labels(model, signature).observe(seconds)
        if code == "OK":
            self._rows.labels(model, signature).inc(rows)

    def response_sent(self, protocol: str, code: str) -> None:
        """Counts an answer of the REST or gRPC side, refusals included."""
        self._responses.labels(protocol, code).inc()

    def batch_run(self, model: str, signature: str, *, rows: int, seconds: float) -> None:
        """Counts one run of a graph."""
        self._batch_rows.labels(model, signature).observe(rows)
        self._run_seconds.labels(model, signature).observe(seconds)

    def request_dropped(self, model: str, signature: str) -> None:
        """Counts a request that was not run because its caller was gone."""
        self._dropped.labels(model, signature).inc()

    def set_queue(self, model: str, signature: str, rows: int) -> None:
        """Keeps how many rows wait."""
        self._queue.labels(model, signature).set(rows)

    def set_versions(self, model: str, states: Mapping[int, str]) -> None:
        """Keeps which versions of a model answer."""
        for version, state in states.items():
            self._versions.labels(model, str(version)).set(state == "AVAILABLE")

    def text(self) -> bytes:
        """Gives all of it in Prometheus's text format."""
        return generate_latest(self.registry)
