"""What a server refuses so that it lives: rows, queues, times, strangers; and how it stops."""

import json
import shutil
import socket
import subprocess
import threading
import time
from importlib import import_module
from typing import Any

import grpc
import httpx
import pytest

from llama_keras.errors import InputError
from llama_keras.serving.batching import Batching
from llama_keras.serving.grpc_messages import messages
from llama_keras.serving.limits import Access, Limits, read_token
from llama_keras.serving.server import ModelServer, running_server
from llama_keras.serving.tensor_proto import fill_tensor
from tests.serving.fakes import FakeModel, add_version, texts

LOAD: Any = FakeModel

TOKEN = "a-token-of-the-tests"
CODE = grpc.StatusCode


@pytest.fixture
def folder(tmp_path):
    return add_version(tmp_path / "m", 1)


@pytest.fixture
def running(folder):
    """Gives a running server of a fake model, and that model."""
    contexts, models = [], []

    def start(**options) -> tuple[ModelServer, FakeModel]:
        options = {"batching": Batching(num_batch_threads=1), **options}
        context = running_server(folder, port=0, grpc_port=0, load=LOAD, poll_seconds=0, **options)
        contexts.append(context)
        server = context.__enter__()
        with server.served.use("m") as servable:
            models.append(servable.model)
        return server, models[-1]

    yield start
    for model in models:
        model.gate.set()
    for context in contexts:
        context.__exit__(None, None, None)


def post(server, *values, verb="predict", **options):
    body = {"instances": list(values)}
    with httpx.Client(trust_env=False, timeout=20, **options) as http:
        return http.post(f"{server.url}:{verb}", json=body)


def in_thread(function, *arguments, **options):
    answers = []
    thread = threading.Thread(target=lambda: answers.append(function(*arguments, **options)))
    thread.start()
    return thread, answers


def grpc_predict(server, *values, timeout=20.0, channel=None, metadata=None):
    request = messages()["PredictRequest"]()
    request.model_spec.name = "m"
    fill_tensor(request.inputs["text"], texts(*values)["text"], dtype="string")
    channel = channel or grpc.insecure_channel(server.grpc_url.split("/")[2])
    with channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        return call(request.SerializeToString(), timeout=timeout, metadata=metadata)


def grpc_code(*arguments, **options):
    with pytest.raises(grpc.RpcError) as caught:
        grpc_predict(*arguments, **options)
    return caught.value.code()  # type: ignore[attr-defined]


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


def test_a_full_queue_and_late_answers(running):
    server, model = running(
        limits=Limits(timeout=0.4),
        batching=Batching(num_batch_threads=1, max_batch_size=1, max_enqueued_batches=1),
    )
    model.gate.clear()
    first, one = in_thread(post, server, "a")
    assert model.began.wait(10)
    second, two = in_thread(post, server, "b")
    wait_until(lambda: b'queue_rows{model="m",signature="serving_default"} 1.0' in counts(server))
    refused = post(server, "c")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert "queue of m is full" in refused.json()["error"]
    assert grpc_code(server, "d") is CODE.RESOURCE_EXHAUSTED
    for thread, answers in ((first, one), (second, two)):
        thread.join()
        assert answers[0].status_code == 504 and "Timed out" in answers[0].json()["error"]
    assert grpc_code(server, "e", timeout=0.1) is CODE.DEADLINE_EXCEEDED
    model.gate.set()
    assert post(server, "f").status_code == 200
    assert model.runs == [1, 1]  # what was late did not run


def counts(server) -> bytes:
    return server.served.metrics.text()


def test_rows(running):
    server, _ = running(limits=Limits(max_rows=2))
    answer = post(server, "a", "b", "c")
    assert answer.status_code == 400 and "3 rows; at most 2" in answer.json()["error"]
    assert grpc_code(server, "a", "b", "c") is CODE.INVALID_ARGUMENT
    assert post(server, "a", "b").status_code == 200


def test_work_of_a_caller_who_has_gone_is_dropped(running):
    server, model = running()
    model.gate.clear()
    first, answers = in_thread(post, server, "a")
    assert model.began.wait(10)
    host, port = server.url.split("/")[2].split(":")
    body = json.dumps({"instances": ["gone"]})
    with socket.create_connection((host, int(port))) as caller:
        head = (
            f"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        caller.sendall((head + body).encode())
        wait_until(
            lambda: b'queue_rows{model="m",signature="serving_default"} 1.0' in counts(server)
        )
    wait_until(lambda: b'code="CANCELLED",model="m"' in counts(server))
    model.gate.set()
    first.join()
    assert answers[0].status_code == 200 and model.runs == [1]


def test_stopping_answers_what_was_begun_and_refuses_what_comes(running):
    server, model = running()
    base = server.url.split("/v1")[0]
    ready = httpx.get(f"{base}/readyz", trust_env=False)
    assert (ready.status_code, httpx.get(f"{base}/healthz", trust_env=False).text) == (200, "ok\n")
    assert health(server) == 1
    model.gate.clear()
    threads = [in_thread(post, server, "a")]
    assert model.began.wait(10)
    threads += [in_thread(post, server, letter) for letter in "bc"]
    wait_until(lambda: b'queue_rows{model="m",signature="serving_default"} 2.0' in counts(server))
    server.stop()
    wait_until(lambda: server.served.draining)
    assert httpx.get(f"{base}/readyz", trust_env=False).status_code == 503
    assert httpx.get(f"{base}/healthz", trust_env=False).status_code == 200
    refused = post(server, "d")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert grpc_code(server, "d") is CODE.UNAVAILABLE and health(server) == 2
    model.gate.set()
    for thread, answers in threads:
        thread.join()
        assert answers[0].status_code == 200


def health(server, service="", channel=None):
    request = messages()["CheckRequest"](service=service).SerializeToString()
    with channel or grpc.insecure_channel(server.grpc_url.split("/")[2]) as channel:
        answer = channel.unary_unary("/grpc.health.v1.Health/Check")(request, timeout=10)
    return messages()["CheckResponse"].FromString(answer).status


def test_a_drain_that_takes_too_long_ends(folder):
    server = ModelServer(
        folder, port=0, load=LOAD, limits=Limits(drain_seconds=0.1), poll_seconds=0
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    with server.served.use("m") as servable:
        model: Any = servable.model
    model.gate.clear()
    asking, answers = in_thread(post, server, "a")
    assert model.began.wait(10)
    server.stop()
    asking.join(15)
    assert answers[0].status_code == 503 and "shutting down" in answers[0].json()["error"]
    model.gate.set()
    thread.join(15)
    assert not thread.is_alive()


def test_a_token_is_asked_for_but_not_by_the_probes(running):
    server, _ = running(access=Access(token=TOKEN))
    base = server.url.split("/v1")[0]
    right = {"Authorization": f"Bearer {TOKEN}"}
    wrong = [{}, {"Authorization": "Bearer wrong-token"}, {"Authorization": f"Basic {TOKEN}"}]
    paths = ("/v1/models/m", "/v1/models", "/metrics", "/v1/completions", "/page/models.json")
    for headers in wrong:
        for path in paths:
            answer = httpx.get(base + path, headers=headers, trust_env=False)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        assert post(server, "a", headers=headers).status_code == 401
    assert post(server, "a", headers=right).status_code == 200
    assert httpx.get(f"{base}/metrics", headers=right, trust_env=False).status_code == 200
    for path in ("/healthz", "/readyz"):
        assert httpx.get(base + path, trust_env=False).status_code == 200
    assert grpc_code(server, "a") is CODE.UNAUTHENTICATED
    assert grpc_code(server, "a", metadata=[("authorization", "Bearer x")]) is CODE.UNAUTHENTICATED
    assert grpc_predict(server, "a", metadata=[("authorization", f"Bearer {TOKEN}")])
    assert health(server) == 1
    assert "$LLAMA_KERAS_TOKEN" in server.banner() and TOKEN not in server.banner()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if not shutil.which("openssl"):
        pytest.skip("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += [
        "-subj",
        "/CN=localhost",
        "-addext",
        names,
        "-out",
        "cert.pem",
        "-keyout",
        "key.pem",
    ]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


def test_tls(running, certificate):
    import ssl

    cert, key = certificate
    server, _ = running(access=Access(tls_cert=cert, tls_key=key))
    assert server.url.startswith("https://") and str(server.grpc_url).startswith("grpcs://")
    context = ssl.create_default_context(cafile=str(cert))
    assert post(server, "a", verify=context).status_code == 200
    with pytest.raises(httpx.ConnectError):
        post(server, "a")
    credentials = grpc.ssl_channel_credentials(cert.read_bytes())
    channel = grpc.secure_channel(str(server.grpc_url).split("/")[2], credentials)
    assert grpc_predict(server, "a", channel=channel)
    assert grpc_code(server, "a", timeout=5) is CODE.UNAVAILABLE


def test_other_machines_need_a_token(folder):
    def make(**options):
        server = ModelServer(folder, host="0.0.0.0", port=0, load=LOAD, access=Access(**options))
        server.served.close()
        server._socket.close()
        return server.warning

    with pytest.raises(InputError, match="Anyone who reaches 0.0.0.0.*--token-file.*--insecure"):
        make()
    assert "there is no login" in str(make(insecure=True))
    assert "without TLS" in str(make(token=TOKEN))
    assert Access(token=TOKEN).check_address("::1") is None


def test_tokens_and_files(tmp_path):
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert read_token(file, environment={}) == TOKEN
    assert read_token(environment={"LLAMA_KERAS_TOKEN": "x"}) == "x"
    assert read_token(environment={}) is None
    file.write_text("\n")
    for wrong, reason in ((file, "is empty"), (tmp_path / "none", "cannot be read")):
        with pytest.raises(InputError, match=reason):
            read_token(wrong)
    for token in ("short", "with a space in it", "schlüssel-des-hauses"):
        with pytest.raises(InputError, match="at least 8 characters"):
            Access(token=token)
    with pytest.raises(InputError, match="both --tls-cert and --tls-key"):
        Access(tls_cert=file)
    with pytest.raises(InputError, match="There is no file"):
        Access(tls_cert=file, tls_key=tmp_path / "none")
    wrong_limits: list[dict[str, Any]] = [{"timeout": 0}, {"max_rows": -1}, {"drain_seconds": -1.0}]
    for options in wrong_limits:
        with pytest.raises(InputError):
            Limits(**options)


def test_classify_and_regress_take_examples_over_both_protocols(running):
    server, _ = running()
    url, body = server.url, {"examples": [{"text": "ab", "n": [1, 2], "x": 0.5}, {}]}
    with httpx.Client(trust_env=False, timeout=20) as http:
        for verb, pairs in (("classify", list), ("regress", float)):
            answer = http.post(f"{url}:{verb}", json={"signature_name": verb, **body})
            assert answer.status_code == 200
            rows = answer.json()["results"]
            assert len(rows) == 2 and all(isinstance(row, pairs) for row in rows)
        # The second example holds what the context does, the first one more.
        with_context = {"signature_name": "regress", "context": {"lang": "de"}, **body}
        rows = http.post(f"{url}:regress", json=with_context).json()["results"]
        assert rows[0] > rows[1] > 0
        refused = {
            "one input Tensor|No classification inputs": {**body},
            "'examples' is expected": {"signature_name": "classify"},
            "must be JSON object": {"signature_name": "classify", "examples": [1]},
            "unexpected JSON type": {"signature_name": "classify", "examples": [{"a": None}]},
            "expecting one type": {"signature_name": "classify", "examples": [{"a": [1, "b"]}]},
        }
        for wrong in refused.values():
            answer = http.post(f"{url}:classify", json=wrong)
            assert answer.status_code == 400 and answer.json()["error"]
    api: Any = import_module("tensorflow_serving.apis.classification_pb2")
    request = api.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = "m", "classify"
    for text in ("a", "abc"):
        example = request.input.example_list.examples.add()
        example.features.feature["text"].bytes_list.value.append(text.encode())
    with grpc.insecure_channel(str(server.grpc_url).split("/")[2]) as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Classify")
        answer = api.ClassificationResponse.FromString(
            call(request.SerializeToString(), timeout=10)
        )
    rows = [[(c.label, c.score) for c in row.classes] for row in answer.result.classifications]
    sizes = [len(example.SerializeToString()) for example in request.input.example_list.examples]
    assert rows == [[("a", 0.25), ("b", size / 8)] for size in sizes]


def test_metrics(running):
    server, _ = running()
    post(server, "a", "b")
    post(server, "bad")
    grpc_predict(server, "c")
    base = server.url.split("/v1")[0]
    for path in ("/metrics", "/monitoring/prometheus/metrics"):
        answer = httpx.get(base + path, trust_env=False)
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if line[0] != "#")  # pyright: ignore
    own = 'model="m",signature="serving_default"'
    wanted = {
        f'llama_keras_requests_total{{code="OK",{own}}}': 2,
        f'llama_keras_requests_total{{code="INVALID_ARGUMENT",{own}}}': 1,
        f"llama_keras_rows_total{{{own}}}": 3,
        f"llama_keras_request_seconds_count{{{own}}}": 3,
        f"llama_keras_batch_rows_sum{{{own}}}": 3,
        f"llama_keras_queue_rows{{{own}}}": 0,
        'llama_keras_responses_total{code="200",protocol="http"}': 2,
        'llama_keras_responses_total{code="400",protocol="http"}': 1,
        'llama_keras_responses_total{code="OK",protocol="grpc"}': 1,
        'llama_keras_version_available{model="m",version="1"}': 1,
    }
    assert {name: float(lines[name]) for name in wanted} == wanted
