"""The one-file client over REST and gRPC, blocking and async, beside a live server and fakes."""

import asyncio
import json
import socket
import threading
import time
from email.utils import formatdate
from typing import Any

import numpy as np
import pytest

from llama_keras.serving import client as module
from llama_keras.serving.client import AsyncClient, Client, ServingError, predict
from tests.serving.fake_http import BAD, BUSY, FINE, GOOD, fake_server


@pytest.fixture(params=["url", "grpc_url"])
def address(request, tiny_server):
    return getattr(tiny_server, request.param)


@pytest.fixture
def client(address):
    with Client(address, timeout=30) as client:
        yield client


@pytest.fixture
def waits(monkeypatch):
    """Seconds that the client would have slept."""
    found = []
    monkeypatch.setattr(module.time, "sleep", found.append)
    return found


def run_async(address, work, **arguments):
    async def run():
        async with AsyncClient(address, timeout=30, **arguments) as client:
            return await work(client)

    return asyncio.run(run())


def test_rows_in_small_requests_keep_the_order(address):
    texts = ["good", "bad", b"so good", "dull", "worse"]
    wanted = [GOOD, BAD, GOOD, BAD, BAD]
    assert predict(address, texts, batch_size=2, timeout=30) == wanted
    assert predict(address, [], batch_size=2) == []
    found = run_async(address, lambda client: client.predict(texts * 20, batch_size=3))
    assert found == wanted * 20


def test_rows_and_columns_of_all_types(client):
    row = {"x": [1, 2.5], "add": 3, "wide": 2**40, "negate": False}
    answer = {"flag": True, "total": 6.5, "wide": 2**40 + 1}
    other = {"x": [0.5, 0.25], "add": -1, "wide": -5, "negate": True}
    answers = [answer, {"flag": False, "total": 0.25, "wide": -4}]
    assert client.predict([row, other], signature="numbers") == answers
    columns = {name: [row[name], other[name]] for name in row}
    as_arrays = {name: np.array(values) for name, values in columns.items()}
    as_arrays["x"] = as_arrays["x"].astype("float32")
    for given_ in (columns, as_arrays):
        found = client.run("numbers", given_)
        assert found == {name: [row[name] for row in answers] for name in answer}


def test_bytes_single_outputs_and_scalars(client):
    rows = [
        {"data_bytes": "Né\x00".encode(), "text": "né\x00"},
        {"data_bytes": b"\xff", "text": "�"},
    ]
    assert client.predict(["Né\x00", b"\xff"], signature="echo") == rows
    assert client.predict(["a b", "c"], signature="words") == [{"words": 2}, {"words": 1}]
    assert client.run("mean", {"x": [1.0, 2.0]}) == {"mean": 1.5}
    assert client.run(None, {"text": []})["label"] == []
    special = client.run("logarithm", {"x": [-1.0, 0.0, float("inf")]})["y"]
    assert str(special) == "[nan, -inf, inf]"


def test_metadata_and_status_are_alike_over_both(tiny_server):
    with Client(tiny_server.url) as rest, Client(tiny_server.grpc_url) as grpc:
        assert rest.status() == grpc.status()
        assert rest.status()[0]["state"] == "AVAILABLE"
        assert rest.versions() == grpc.versions() == [3]
        assert rest.inputs("numbers") == grpc.inputs("numbers") == ["add", "negate", "wide", "x"]
        ours, theirs = rest.signatures(), grpc.signatures()
        assert list(ours) == list(theirs)
        for name in ours:
            for side in ("inputs", "outputs", "method_name"):
                assert ours[name][side] == theirs[name][side]
        assert rest.metadata()["model_spec"] == grpc.metadata()["model_spec"]


def test_forms_of_the_url(tiny_server):
    url, grpc = tiny_server.url, tiny_server.grpc_url
    server = url.removesuffix("/v1/models/tiny")
    for target in (server, f"{server}/", f"{server}/v1/models", f"{url}/", f"{url}:predict"):
        assert predict(target, ["good"]) == [GOOD]
    for target in (f"{url}/versions/3", f"{grpc}/versions/3", f"{url}/versions/3:predict"):
        assert predict(target, ["good"]) == [GOOD]
    for target in (url, grpc):
        assert predict(target, ["good"], version=3) == [GOOD]
        wrongs: list[dict[str, Any]] = [{"version": 9}, {"label": "nightly"}]
        for wrong in wrongs:
            with pytest.raises(ServingError) as caught:
                predict(target, ["good"], **wrong)
            assert caught.value.status in (400, 404)


@pytest.mark.parametrize(
    "target",
    [
        *("localhost:8501", "ftp://x/v1/models/y", "http://", "", "grpc://", "http://x:port"),
        *("grpc://x", "grpc://x/a/b", "http://x/v1/models/y/versions/z", "http://x/models"),
        "grpc://x/a/labels/",
    ],
)
def test_targets_that_are_no_url(target):
    with pytest.raises(ServingError, match="http://HOST:PORT/v1/models/NAME or grpc://") as caught:
        predict(target, ["a"])
    assert caught.value.status == 400


def test_version_and_label_exclude_each_other():
    with pytest.raises(ServingError, match="/versions/V or /labels/L"):
        Client("http://x/v1/models/y/labels/a", version=3)


@pytest.mark.parametrize("what", ["signature", "type", "shape", "graph"])
def test_errors_of_the_server_reach_the_caller(client, what):
    calls = {
        "signature": lambda: client.predict(["a"], signature="poem"),
        "type": lambda: client.predict([1]),
        "shape": lambda: client.run("classify", {"text": "a"}),
        "graph": lambda: client.run("pick", {"index": [5]}),
    }
    with pytest.raises(ServingError) as caught:
        calls[what]()
    assert caught.value.status == 400
    assert caught.value.message == str(caught.value)


def test_mistakes_over_grpc_are_told_before_anything_is_sent(tiny_server):
    with Client(tiny_server.grpc_url) as client:
        for call, reason in (
            (lambda: client.run("poem", {}), "no signature 'poem'; it has"),
            (lambda: client.run("classify", {"txt": ["x"]}), "no input 'txt'"),
            (lambda: client.run("logarithm", {"x": [[1], [2, 3]]}), "rows differ in length"),
            (lambda: client.run("logarithm", {"x": ["a"]}), "is no DT_FLOAT"),
            (lambda: client.run("pick", {"index": [2**40]}), "is no DT_INT32"),
            (lambda: client.predict([{"x": [1, 2]}], signature="numbers"), "add, negate, wide, x"),
            (lambda: client.predict([1.0, 2.0], signature="mean"), "one value a row"),
            (lambda: client.complete("x"), "over http:// only"),
        ):
            with pytest.raises(ServingError, match=reason):
                call()


def test_no_server(waits):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ServingError, match="No connection to .*llama-keras serve") as caught:
            predict(f"http://{place}/v1/models/x", ["a"])
        assert caught.value.status is None
        assert [0.125 * 2**n <= wait <= 0.25 * 2**n for n, wait in enumerate(waits)] == [True] * 3
        with pytest.raises(ServingError, match="No connection to grpc://") as caught:
            predict(f"grpc://{place}/x", ["a"], retries=0, timeout=5)
        assert caught.value.status == 503


def test_server_that_is_too_slow_is_not_asked_again(waits):
    done = threading.Event()
    with fake_server((200, b"{}"), wait=done) as server:
        with pytest.raises(ServingError, match=r"did not answer within 0\.2 s") as caught:
            predict(server.url, ["a"], timeout=0.2)
        done.set()
    assert caught.value.status == 504 and waits == []


def test_busy_servers_are_asked_again_when_they_say(waits):
    date = formatdate(time.time() + 20, usegmt=True)
    answers = [
        (429, BUSY, {"Retry-After": "7"}),
        (503, BUSY, {"Retry-After": date}),
        (503, BUSY, {"Retry-After": "soon"}),
    ]
    with fake_server(*answers, FINE) as server:
        assert predict(server.url, ["x"]) == [{"a": 1}]
    assert waits[0] == 7
    assert 15 < waits[1] <= 20
    assert 0.5 <= waits[2] <= 1.0


def test_waits_beyond_the_time_limit_and_refusals_are_told_at_once(waits):
    for status, headers in ((429, {"Retry-After": "61"}), (500, {}), (404, {})):
        with fake_server((status, BUSY, headers), FINE) as server:
            with pytest.raises(ServingError, match=f"answered {status}: busy") as caught:
                predict(server.url, ["x"])
            assert caught.value.status == status
    assert waits == []


def test_connections_that_break_are_made_again(waits):
    """As where a server is killed and comes back between two requests."""
    with (
        fake_server((200, FINE[1], {"Connection": "close"})) as server,
        Client(server.url) as client,
    ):
        for _ in range(3):
            assert client.predict(["x"]) == [{"a": 1}]
    assert waits == []


def test_async_requests_are_bounded_and_the_first_error_ends_them():
    running, most, lock = [0], [0], threading.Lock()

    class Slow:
        def wait(self, seconds):
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            time.sleep(0.02)
            with lock:
                running[0] -= 1

    with fake_server(FINE, wait=Slow()) as server:
        found = run_async(server.url, lambda c: c.predict(["x"] * 12, batch_size=1), concurrency=3)
    assert found == [{"a": 1}] * 12
    assert most[0] == 3
    with fake_server(FINE, FINE, (400, BUSY)) as server:
        with pytest.raises(ServingError, match="busy"):
            run_async(server.url, lambda c: c.predict(["x"] * 500, batch_size=1), concurrency=2)
        assert len(server.asked) < 20


def test_connections_are_kept():
    ports = set()
    with fake_server(FINE) as server:
        handle = server.finish_request
        server.finish_request = lambda request, place: (ports.add(place), handle(request, place))
        with Client(server.url) as client:
            for _ in range(5):
                client.predict(["x"])
    assert len(ports) == 1


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (400, b'{"error": {"message": "of the OpenAI form"}}', "answered 400: of the OpenAI form"),
        (502, b"<html>bad gateway</html>", "answered 502: <html>"),
        (200, b"not json", "answered 200: not json"),
        (200, b'{"predictions": [1, 2]}', "no list of 1 predictions"),
        (200, b'{"foo": 1}', "no list of 1 predictions"),
        (200, b'{"predictions": [1]}', "does not tell its signatures"),
    ],
)
def test_servers_that_are_none(status, body, message):
    with fake_server((status, body)) as server, pytest.raises(ServingError, match=message):
        predict(server.url, ["a"], retries=0)


def test_tf_serving_does_not_list_its_models():
    with fake_server((400, b'{"error": "Missing model name in request."}')) as server:
        with pytest.raises(ServingError, match="does not say which model"):
            predict(server.url.removesuffix("/v1/models/x"), ["a"])


def test_what_json_cannot_carry_is_told():
    with fake_server(FINE) as server:
        for row, reason in (("\ud800", "surrogates"), (object(), "a object is no input")):
            with pytest.raises(ServingError, match=reason):
                predict(server.url, [row])
        assert server.asked == []


def test_a_proxy_in_the_environment_is_not_used_for_loopback(address, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert predict(address, ["good"], timeout=10) == [GOOD]


def test_token_is_sent(monkeypatch):
    with fake_server(FINE) as server:
        predict(server.url, ["x"], token="s3cret")
        assert server.asked[0][1]["Authorization"] == "Bearer s3cret"


EVENTS = b"".join(
    b"data: " + json.dumps({"choices": [{"delta": delta}]}).encode() + b"\n\n"
    for delta in ({"role": "assistant"}, {"content": "Hel"}, {"content": "lo é"}, {})
)


def test_chat_is_streamed_and_texts_completed():
    messages = [{"role": "user", "content": "Hi"}]
    answers = [(200, EVENTS + b"data: [DONE]\n\n"), (200, b'{"choices": [{"text": " went"}]}')]
    for _ in ("blocking", "async"):
        with fake_server(*answers) as server:

            async def talk(client):
                pieces = [piece async for piece in client.stream_chat(messages, max_tokens=5)]
                return pieces, await client.complete("She", max_tokens=1)

            if _ == "async":
                pieces, text = run_async(server.url, talk)
            else:
                with Client(server.url) as client:
                    pieces = list(client.stream_chat(messages, max_tokens=5))
                    text = client.complete("She", max_tokens=1)
            assert (pieces, text) == (["Hel", "lo é"], " went")
            paths = [path for path, _, _ in server.asked]
            assert paths == ["/v1/chat/completions", "/v1/completions"]
            asked = json.loads(server.asked[0][2])
            assert asked == {"model": "x", "messages": messages, "max_tokens": 5, "stream": True}


def test_streams_that_fail_are_told():
    broken = EVENTS + b'data: {"error": {"message": "out of memory"}}\n\n'
    for answer, reason in (((200, broken), "out of memory"), ((404, BUSY), "answered 404: busy")):
        with fake_server(answer) as server, Client(server.url, retries=0) as client:
            with pytest.raises(ServingError, match=reason):
                list(client.stream_chat([]))
            with pytest.raises(ServingError, match=reason):

                async def talk(client):
                    return [piece async for piece in client.stream_chat([])]

                run_async(server.url, talk)


def test_certificates_that_are_none(tmp_path):
    file = tmp_path / "ca.pem"
    for url in ("https://localhost:1/v1/models/x", "grpcs://localhost:1/x"):
        with pytest.raises(ServingError, match=r"ca\.pem cannot be read"):
            Client(url, ca_file=str(file))
    with pytest.raises(ServingError, match="not encrypted; write grpcs"):
        Client("grpc://localhost:1/x", ca_file=str(file))
