"""The ASGI application of a server: who may pass, which routes there are, what is counted."""

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from .limits import Access, Limits
from .metrics import CONTENT_TYPE
from .rest_routes import RestRoutes
from .served import ServedModels

Routes = Callable[[ServedModels], Sequence[Route]]
# Ours, and the path where TF Serving has its own by default in its documentation.
METRICS_PATHS = ("/metrics", "/monitoring/prometheus/metrics")
# What needs no token: an orchestrator's probes, and the page, which holds nothing of the models.
OPEN_PATHS = frozenset({"/", "/healthz", "/readyz"})
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_Message = MutableMapping[str, Any]


def make_app(
    served: ServedModels,
    *,
    limits: Limits,
    access: Access,
    extra_routes: Sequence[Routes] = (),
) -> Callable[..., Awaitable[None]]:
    """Gives the ASGI application.

    Args:
        served: what is asked.
        limits: sizes and times.
        access: who may ask.
        extra_routes: functions that give further routes of the models.
    """
    rest = RestRoutes(served, limits=limits)

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        if served.ready:
            return PlainTextResponse("ready\n")
        reason = "stopping" if served.draining else "a model has no version that answers"
        return PlainTextResponse(f"not ready: {reason}\n", 503, {"Retry-After": "1"})

    async def metrics(request: Request) -> Response:
        return Response(served.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    routes = [route for make in extra_routes for route in make(served)]
    routes += [Route("/healthz", healthz), Route("/readyz", readyz)]
    routes += [Route(path, metrics) for path in METRICS_PATHS]
    routes += [Route("/{path:path}", rest.handle, methods=_METHODS)]
    return _Gate(Starlette(routes=routes), served=served, access=access)


class _Gate:
    """Lets requests with the right token pass, and counts the answers."""

    def __init__(self, app: Any, *, served: ServedModels, access: Access):
        self._app, self._metrics, self._access = app, served.metrics, access

    async def __call__(self, scope: _Message, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def count_and_send(message: _Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.response_sent("http", str(message["status"]))
            await send(message)

        app = self._app if self._may_pass(scope) else _refuse
        await app(scope, receive, count_and_send)

    def _may_pass(self, scope: _Message) -> bool:
        if self._access.token is None or scope["path"] in OPEN_PATHS:
            return True
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and self._access.allows(given[0].decode("latin-1"))


_refuse = JSONResponse(
    {"error": "Missing or wrong token; send the header Authorization: Bearer TOKEN"},
    status_code=401,
    headers={"WWW-Authenticate": "Bearer"},
)
