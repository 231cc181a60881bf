"""Contract tests of the REST server: TF Serving's documented paths, bodies and status codes."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

from llama_keras.errors import InputError
from llama_keras.serving.server import ModelServer


@pytest.fixture(scope="module")
def http(tiny_url):
    with httpx.Client(trust_env=False, timeout=30) as client:
        yield client


def post(http, url, body):
    content = body if isinstance(body, str | bytes) else json.dumps(body)
    response = http.post(url, content=content)
    assert response.headers["content-type"] == "application/json"
    return response.status_code, response.json()


GOOD = {"label": "positive", "score": 0.75, "scores": [0.25, 0.75]}
BAD = {"label": "negative", "score": 0.875, "scores": [0.875, 0.125]}


def test_predict_rows(http, tiny_url):
    for instances in (["so good", "dull"], [{"text": "so good"}, {"text": "dull"}]):
        assert post(http, f"{tiny_url}:predict", {"instances": instances}) == (
            200,
            {"predictions": [GOOD, BAD]},
        )


def test_predict_columns(http, tiny_url):
    expected = {
        "outputs": {
            "label": ["positive", "negative"],
            "score": [0.75, 0.875],
            "scores": [[0.25, 0.75], [0.875, 0.125]],
        }
    }
    for inputs in (["so good", "dull"], {"text": ["so good", "dull"]}):
        body = {"signature_name": "classify", "inputs": inputs}
        assert post(http, f"{tiny_url}/versions/3:predict", body) == (200, expected)


def test_predict_base64_and_empty_signature_name(http, tiny_url):
    body = {"signature_name": "", "instances": [{"b64": "Z29vZA=="}]}
    assert post(http, f"{tiny_url}:predict", body) == (200, {"predictions": [GOOD]})


def test_empty_batch_in_columns(http, tiny_url):
    answer = {"outputs": {"label": [], "score": [], "scores": []}}
    assert post(http, f"{tiny_url}:predict", {"inputs": {"text": []}}) == (200, answer)


def test_bytes_outputs(http, tiny_url):
    body = {"signature_name": "echo", "instances": [{"b64": "/0E="}]}
    answer = {"predictions": [{"data_bytes": {"b64": "/0E="}, "text": "�a"}]}
    assert post(http, f"{tiny_url}:predict", body) == (200, answer)


def test_numbers(http, tiny_url):
    rows = [
        {"x": [1, 2.5], "add": 3, "wide": 2**40, "negate": False},
        {"x": [0.1, 0.1], "add": 0, "wide": -1, "negate": True},
    ]
    body = {"signature_name": "numbers", "instances": rows}
    answer = [
        {"flag": True, "total": 6.5, "wide": 2**40 + 1},
        {"flag": False, "total": -0.2, "wide": 0},
    ]
    assert post(http, f"{tiny_url}:predict", body) == (200, {"predictions": answer})


def test_single_output_goes_unnamed_and_tf_text_runs(http, tiny_url):
    body = {"signature_name": "words", "instances": ["a b c", "d"]}
    assert post(http, f"{tiny_url}:predict", body) == (200, {"predictions": [3, 1]})


def test_nan_and_infinity(http, tiny_url):
    body = '{"signature_name": "logarithm", "instances": [-1, 0, Infinity]}'
    response = http.post(f"{tiny_url}:predict", content=body)
    assert response.status_code == 200
    assert re.sub(r"\s", "", response.text) == '{"predictions":[NaN,-Infinity,Infinity]}'


def test_status(http, tiny_url):
    state = {
        "version": "3",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    for url in (tiny_url, f"{tiny_url}/versions/3"):
        response = http.get(url)
        assert (response.status_code, response.json()) == (200, {"model_version_status": [state]})


def test_metadata(http, tiny_url):
    content = http.get(f"{tiny_url}/metadata").json()
    assert content["model_spec"] == {"name": "tiny", "signature_name": "", "version": "3"}
    signatures = content["metadata"]["signature_def"]["signature_def"]
    text = signatures["serving_default"]["inputs"]["text"]
    assert text["dtype"] == "DT_STRING"
    assert text["tensor_shape"] == {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    assert signatures["numbers"]["method_name"] == "tensorflow/serving/predict"
    assert http.get(f"{tiny_url}/versions/3/metadata").json() == content


def test_listing(http, tiny_url):
    base = tiny_url.removesuffix("/tiny")
    assert [model["id"] for model in http.get(base).json()["data"]] == ["tiny"]


ROW = '{"instances": ["x"]}'


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        (
            "POST",
            "/v1/models/foo:predict",
            ROW,
            404,
            r"Servable not found for request: Latest\(foo\)",
        ),
        ("POST", "/v1/models/tiny/versions/1:predict", ROW, 404, r"Specific\(tiny, 1\)"),
        ("POST", "/v1/models/tiny/versions/99999999999999999999:predict", ROW, 400, "to numeric"),
        (
            "POST",
            "/v1/models/tiny/labels/stable:predict",
            ROW,
            400,
            "servable version label: stable",
        ),
        ("POST", "/v1/models/tiny:predict", "", 400, "The document is empty"),
        ("POST", "/v1/models/tiny:predict", b'{"instances": ["\xff"]}', 400, "not UTF-8"),
        ("POST", "/v1/models/foo:predict", "nope", 400, "JSON Parse error"),
        (
            "POST",
            "/v1/models/tiny:predict",
            '{"instances": [1]}',
            400,
            "not of expected type: string",
        ),
        (
            "POST",
            "/v1/models/tiny:predict",
            '{"signature_name": "no", "instances": ["a"]}',
            400,
            'Serving signature name: "no" not found in signature def',
        ),
        (
            "POST",
            "/v1/models/tiny:predict",
            '{"signature_name": 100}',
            400,
            "'signature_name' key must be a string value",
        ),
        (
            "POST",
            "/v1/models/tiny:predict",
            '{"signature_name": "mean", "instances": [1, 2]}',
            400,
            "Tensor name: mean has no shape information",
        ),
        (
            "POST",
            "/v1/models/tiny:predict",
            '{"signature_name": "pick", "instances": [5]}',
            400,
            "index too large",
        ),
        ("POST", "/v1/models/tiny:predict", "x" * 30_000, 413, "larger than 20000 bytes"),
        ("POST", "/v1/models/tiny:predict", "x" * 300_000, 413, "larger than 20000 bytes"),
        ("POST", "/v1/models/tiny:classify", '{"examples": []}', 400, "is an empty array"),
        ("GET", "/v1/models/foo", None, 404, "Could not find any versions of model foo"),
        ("GET", "/v1/models/tiny/versions/1", None, 404, "Could not find version 1 of model tiny"),
        ("GET", "/v1/models/foo/metadata", None, 404, r"Servable not found.*Latest\(foo\)"),
        ("GET", "/v1/foo", None, 400, "Malformed request: GET /v1/foo"),
        ("GET", "/v1/models/tiny:predict", None, 400, "Malformed request"),
        ("POST", "/v1/models/tiny", ROW, 400, "Malformed request: POST"),
        ("PUT", "/v1/models/tiny:predict", ROW, 400, "Malformed request: PUT"),
        ("GET", "/index", None, 404, "Not found"),
    ],
)
def test_errors(http, tiny_url, method, path, body, status, message):
    server = tiny_url.removesuffix("/v1/models/tiny")
    response = http.request(method, server + path, content=body)
    assert response.status_code == status
    assert response.json().keys() == {"error"}
    assert re.search(message, response.json()["error"])


def test_paths_ignore_case_as_in_tf_serving(http, tiny_url):
    url = tiny_url.replace("/v1/models/", "/V1/Models/")
    assert http.get(url).status_code == 200


def test_parallel_requests_keep_their_answers(tiny_url):
    wrong = []

    def ask(number):
        text = "good " * (number % 3) + "x"
        with httpx.Client(trust_env=False, timeout=30) as client:
            for _ in range(10):
                body = {"signature_name": "words", "instances": [text]}
                answer = client.post(f"{tiny_url}:predict", json=body).json()
                if answer != {"predictions": [number % 3 + 1]}:
                    wrong.append(answer)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_replies_are_not_delayed_by_nagle(http, tiny_url):
    def seconds():
        start = time.perf_counter()
        post(http, f"{tiny_url}:predict", {"instances": ["good"]})
        return time.perf_counter() - start

    # Nagle's algorithm with delayed acknowledgements would cost each reply 40 ms.
    assert min(seconds() for _ in range(20)) < 0.03


def test_a_slow_model_blocks_neither_status_nor_a_graceful_stop(tiny_model, monkeypatch):
    server = ModelServer(tiny_model, port=0)
    started, finish = threading.Event(), threading.Event()
    with server.served.use("tiny") as servable:
        run_arrays = servable.model.run_arrays

    def slow(signature, inputs):
        started.set()
        assert finish.wait(20)
        return run_arrays(signature, inputs)

    monkeypatch.setattr(servable.model, "run_arrays", slow)
    thread = threading.Thread(target=server.run)
    thread.start()
    answers = []
    with httpx.Client(trust_env=False, timeout=30) as client:
        ask = threading.Thread(
            target=lambda: answers.append(
                post(client, f"{server.url}:predict", {"inputs": ["good"]})
            )
        )
        ask.start()
        assert started.wait(20)
        assert httpx.get(server.url, trust_env=False, timeout=5).status_code == 200
        server.stop()
        thread.join(0.3)
        assert thread.is_alive()  # it waits for the request in progress
        finish.set()
        ask.join()
        thread.join()
    assert answers[0][0] == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url, trust_env=False)


def test_start_up_mistakes(tmp_path, tiny_model):
    with pytest.raises(InputError, match="does not exist"):
        ModelServer(tmp_path / "none")
    (tmp_path / "broken" / "1").mkdir(parents=True)
    (tmp_path / "broken" / "1" / "saved_model.pb").write_bytes(b"\xff\xff")
    with pytest.raises(InputError, match="damaged"):
        ModelServer(tmp_path / "broken")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"Port {port} on 127.0.0.1 is taken.*--port"):
            ModelServer(tiny_model, port=port)
    with pytest.raises(InputError, match="not an address"):
        ModelServer(tiny_model, host="no such host")
    with pytest.raises(InputError, match="from 0 .* to 65535; got 70000"):
        ModelServer(tiny_model, port=70000)


def test_variables_missing(tmp_path, tiny_model):
    copy = tmp_path / "tiny" / "1"
    copy.mkdir(parents=True)
    (copy / "saved_model.pb").write_bytes((tiny_model / "3" / "saved_model.pb").read_bytes())
    with pytest.raises(InputError, match="does not load in TensorFlow"):
        ModelServer(copy, port=0)


def test_the_verb_serves_and_stops_on_sigterm(tiny_model):
    command = [sys.executable, "-m", "llama_keras.cli", "serve", str(tiny_model), "--port", "0"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        found = re.fullmatch(r"Serving tiny version 3 at (http://127\.0\.0\.1:\d+\S+)\n", first)
        assert found, first
        banner = list(iter(process.stdout.readline, "Stop it with Ctrl+C.\n"))
        response = httpx.get(found[1], trust_env=False, timeout=30)
        assert response.status_code == 200
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    assert any('curl -d \'{"instances": ["good film"]}\'' in line for line in banner)
    assert rest == "Stopped.\n"
