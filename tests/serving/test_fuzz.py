"""Requests that are none: always a 4xx with a reason, and the next good one is answered."""

import asyncio
import json
import socket
from collections import Counter
from random import Random
from typing import Any

import grpc
import httpx
import pytest

from llama_keras.serving.client import Client
from llama_keras.serving.server import ModelServer
from tests.serving.fuzzing import GOOD_BODIES, broken_body, broken_headers, broken_path

MALFORMED = 5000
SECONDS = 20  # that no answer may take
LIMIT = 20_000
METHODS = ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "predict", ""]


def asking(app):
    """Gives a function that asks an ASGI app in this loop, without any HTTP library."""

    async def ask(body, path="/v1/models/tiny:predict", headers=(), method="POST", at_once=True):
        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode("utf-8", "replace"),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [*headers],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        parts = [body] if at_once else [body[:7], b"", body[7:]]
        left = [
            {"type": "http.request", "body": part, "more_body": at < len(parts)}
            for at, part in enumerate(parts, 1)
        ]
        sent = []

        async def receive():
            if not left:  # the client stays
                await asyncio.Event().wait()
            return left.pop(0)

        async def send(message):
            sent.append(message)

        await asyncio.wait_for(app(scope, receive, send), SECONDS)
        content = b"".join(message.get("body", b"") for message in sent[1:])
        return sent[0]["status"], content

    return ask


@pytest.fixture(scope="module")
def app(tiny_model):
    server = ModelServer(tiny_model, port=0, max_request_bytes=LIMIT)
    yield server.app
    server.served.close()
    server._socket.close()


def check(status, content, seen):
    """A refusal has a reason; what is answered is an answer."""
    seen[status] += 1
    document = json.loads(content)
    if status == 200:
        assert len(document) == 1 and document.keys() <= {"predictions", "outputs"}
    else:
        assert 400 <= status < 500, (status, content[:300])
        assert isinstance(document["error"], str) and document["error"].strip()


async def check_alive(ask):
    for body in GOOD_BODIES:
        status, content = await ask(body)
        assert status == 200, content


def test_malformed_bodies_are_refused(app):
    """5,000 that are refused; the few mutations that are good requests still are not counted."""
    random, seen = Random(20), Counter()

    async def run():
        ask = asking(app)
        while sum(seen.values()) - seen[200] < MALFORMED:
            body = broken_body(random)
            status, content = await ask(body, at_once=random.random() < 0.8)
            check(status, content, seen)
            if sum(seen.values()) % 500 == 0:
                await check_alive(ask)
        await check_alive(ask)

    asyncio.run(run())
    assert seen[400] > 4000 and seen[413] > 10
    assert seen[200] < MALFORMED / 4


def test_malformed_paths_headers_and_methods_are_refused(app):
    random, seen = Random(21), Counter()

    async def run():
        ask = asking(app)
        for number in range(1500):
            what: dict[str, Any] = {"headers": broken_headers(random)}
            if number % 3 != 1:
                what["path"] = broken_path(random)
            if number % 3 == 2:
                what["method"] = random.choice(METHODS)
            status, content = await ask(random.choice(GOOD_BODIES), **what)
            assert 200 <= status < 500, (what, content[:300])
            seen[status] += 1
            if status >= 400 and what.get("method") != "HEAD":
                assert content.strip(), what
        await check_alive(ask)

    asyncio.run(run())
    assert seen[400] + seen[404] > 400


def test_clients_that_go_away_while_they_send(app):
    async def run():
        ask = asking(app)
        for size in (0, 5, 30):
            scope_body = GOOD_BODIES[0][:size]
            left = [{"type": "http.request", "body": scope_body, "more_body": True}]

            async def receive(left=left):
                return left.pop(0) if left else {"type": "http.disconnect"}

            async def send(message):
                pass

            path = "/v1/models/tiny:predict"
            scope: dict[str, Any] = {"type": "http", "method": "POST", "path": path}
            scope |= {"headers": [], "query_string": b"", "root_path": ""}
            await asyncio.wait_for(app(scope, receive, send), SECONDS)
        await check_alive(ask)

    asyncio.run(run())


# Over sockets


def place_of(url):
    host, port = url.split("/")[2].rsplit(":", 1)
    return host, int(port)


def sent_raw(place, content, *, close=True):
    """Gives what a server says to bytes, until it closes or says no more."""
    with socket.create_connection(place, timeout=SECONDS) as connection:
        try:
            connection.sendall(content)
            if close:
                connection.shutdown(socket.SHUT_WR)
            connection.settimeout(SECONDS if close else 0.05)
            answer = b""
            while part := connection.recv(65536):
                answer += part
        except (ConnectionError, TimeoutError):
            pass
        return answer


def raw_request(random):
    body = broken_body(random)
    length = random.choice([len(body), 0, len(body) + 50, len(body) // 2, -1, 10**15, "x"])
    line = random.choice(
        [
            b"POST /v1/models/tiny:predict HTTP/1.1",
            b"POST " + broken_path(random).encode() + b" HTTP/1.1",
            b"POST /v1/models/tiny:predict HTTP/9.9",
            b"POST  HTTP/1.1",
            b"\x16\x03\x01\x02\x00",  # how TLS begins
            b"PRI * HTTP/2.0",
            b"GET /" + b"a" * 70_000 + b" HTTP/1.1",
        ]
    )
    headers = [b"Host: x", b"Content-Length: " + str(length).encode(), b"Connection: close"]
    headers += [name + b": " + value for name, value in broken_headers(random)]
    random.shuffle(headers)
    return b"\r\n".join([line, *headers, b"", body])


def test_bytes_that_are_no_http_leave_the_server_as_it_was(tiny_server):
    """What is no HTTP gets the HTTP library's own 400, or the connection is closed."""
    place, random = place_of(tiny_server.url), Random(22)
    answers = Counter()
    for number in range(300):
        answer = sent_raw(place, raw_request(random))
        status = answer.split(b" ")[1] if answer.startswith(b"HTTP/1.") else b""
        assert status[:1] in (b"", b"1", b"2", b"4"), answer[:300]
        answers[status] += 1
        if number % 50 == 0:
            assert httpx.get(tiny_server.url, trust_env=False, timeout=SECONDS).status_code == 200
    assert answers[b"400"] > 100


def test_connections_that_stay_half_open_stop_nobody(tiny_server):
    place = place_of(tiny_server.url)
    begun = b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
    pieces = [b"", b"POST", begun[:40], begun, b"GET / HTTP/1.1\r\n"]
    held = [socket.create_connection(place, timeout=SECONDS) for _ in range(60)]
    try:
        for number, connection in enumerate(held):
            connection.sendall(pieces[number % len(pieces)])
        with Client(tiny_server.url, timeout=SECONDS, retries=0) as client:
            for _ in range(5):
                assert client.predict(["good"])[0]["label"] == "positive"
    finally:
        for connection in held:
            connection.close()


def test_bytes_that_are_no_grpc_messages_are_refused(tiny_server):
    random = Random(23)
    methods = ["PredictionService/Predict", "PredictionService/GetModelMetadata"]
    methods += ["ModelService/GetModelStatus", "PredictionService/Poem", "Poem/Predict"]
    good = b"\x0a\x06\x0a\x04tiny"
    seen = Counter()
    with grpc.insecure_channel(tiny_server.grpc_url.split("/")[2]) as channel:
        for number in range(400):
            method = methods[0] if number % 2 else random.choice(methods)
            noise = random.randbytes(random.choice([1, 3, 20, 500]))
            call = channel.unary_unary(f"/tensorflow.serving.{method}")
            try:
                call((good if number % 3 else b"") + noise, timeout=SECONDS)
                seen["OK"] += 1
            except grpc.RpcError as error:
                code: Any = error
                seen[code.code().name] += 1
                if code.code() is grpc.StatusCode.INTERNAL:
                    assert "deserializ" in code.details()
        with Client(tiny_server.grpc_url, timeout=SECONDS, retries=0) as client:
            assert client.predict(["good"])[0]["label"] == "positive"
    refusals = {"INTERNAL", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "FAILED_PRECONDITION"}
    assert set(seen) <= {"OK", *refusals}
    assert seen["OK"] < 40


def test_bytes_that_are_no_http_2_leave_the_grpc_server_as_it_was(tiny_server):
    place, random = place_of(tiny_server.grpc_url), Random(24)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for number in range(60):
        noise = random.randbytes(random.choice([0, 9, 200]))
        sent_raw(place, (preface if number % 2 else b"") + noise, close=number % 3 != 0)
    with Client(tiny_server.grpc_url, timeout=SECONDS, retries=0) as client:
        assert client.versions() == [3]
