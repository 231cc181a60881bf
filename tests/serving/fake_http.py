"""A server that gives the answers that a test tells it to, and what `tiny_server` answers."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BUSY = b'{"error": "busy"}'
FINE = (200, b'{"predictions": [{"a": 1}]}')
GOOD = {"label": "positive", "score": 0.75, "scores": [0.25, 0.75]}
BAD = {"label": "negative", "score": 0.875, "scores": [0.875, 0.125]}


@contextmanager
def fake_server(*answers, wait=None):
    """A server that gives the answers (status, body, headers) in turn, the last one again."""
    left, asked = list(answers), []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            size = int(self.headers.get("Content-Length") or 0)
            asked.append((self.path, dict(self.headers), self.rfile.read(size)))
            if wait is not None:
                wait.wait(10)
            status, body, *headers = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            for name, value in {"Content-Length": len(body), **dict(*headers)}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, format, *args):
            pass

    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.asked = asked
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        server.url = f"http://127.0.0.1:{server.server_port}/v1/models/x"
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
