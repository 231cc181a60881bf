import json
import threading
from contextlib import ExitStack, contextmanager

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

METHODS = ["GET", "POST"]


class FakeServer:
    """A server whose answers a test scripts.

    Attributes:
        url: `http://127.0.0.1:PORT`.
        asked: (method, path, body, headers) of each request.
        answer: from method, path and body a JSON value, bytes, or (status, JSON value).
    """

    def __init__(self):
        self.asked = []
        self.answer = lambda method, path, body: {}
        self.url = ""

    async def handle(self, request):
        raw = await request.body()
        body = json.loads(raw) if raw else None
        self.asked.append((request.method, request.url.path, body, dict(request.headers)))
        answer = self.answer(request.method, request.url.path, body)
        status, content = answer if isinstance(answer, tuple) else (200, answer)
        if isinstance(content, bytes):
            return Response(content, status_code=status)
        return JSONResponse(content, status_code=status)


@contextmanager
def _running(app):
    config = uvicorn.Config(app, port=0, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            thread.join(0.005)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def _shared_server():
    fake = FakeServer()
    app = Starlette(routes=[Route("/{path:path}", fake.handle, methods=METHODS)])
    with ExitStack() as stack:
        port = stack.enter_context(_running(app))
        fake.url = f"http://127.0.0.1:{port}"
        yield fake


@pytest.fixture
def fake_server(_shared_server):
    _shared_server.asked = []
    _shared_server.answer = lambda method, path, body: {}
    return _shared_server


@pytest.fixture
def pauses():
    """Seconds that were slept, by `pauses.append` as sleep."""
    return []
