import json
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from llama_keras.errors import InputError
from llama_keras.serving.client import Client, ServingError, predict
from llama_keras.serving.local import SavedModel

GOOD = {"label": "positive", "score": 0.75, "scores": [0.25, 0.75]}
BAD = {"label": "negative", "score": 0.875, "scores": [0.875, 0.125]}


@contextmanager
def fake_server(status, body, wait=None):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if wait is not None:
                wait.wait(10)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, format, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_predict_in_small_requests_keeps_the_order(tiny_url):
    texts = ["good", "bad", "so good", "dull", "worse"]
    assert predict(tiny_url, texts, batch_size=2) == [GOOD, BAD, GOOD, BAD, BAD]
    assert predict(tiny_url, [], batch_size=2) == []


def test_forms_of_the_url(tiny_url):
    server = tiny_url.removesuffix("/v1/models/tiny")
    for target in (
        server,
        f"{server}/",
        f"{server}/v1/models",
        f"{tiny_url}/",
        f"{tiny_url}:predict",
    ):
        assert predict(target, ["good"]) == [GOOD]
    assert predict(f"{tiny_url}/versions/3", ["good"]) == [GOOD]


def test_other_signatures(tiny_url):
    assert predict(tiny_url, ["a b", "c"], "words") == [{"words": 2}, {"words": 1}]
    assert predict(tiny_url, ["Ab"], "echo") == [{"data_bytes": b"Ab", "text": "ab"}]


def test_client_reads_status_and_metadata(tiny_url):
    with Client(tiny_url) as client:
        assert [state["version"] for state in client.status()] == ["3"]
        assert client.metadata()["model_spec"]["name"] == "tiny"


def test_errors_of_the_server_reach_the_caller(tiny_url):
    with pytest.raises(ServingError, match='answered 400: Serving signature name: "no"') as caught:
        predict(tiny_url, ["a"], "no")
    assert caught.value.status == 400
    with pytest.raises(ServingError, match=r"404: Servable not found for request: Latest\(other\)"):
        predict(tiny_url.replace("/tiny", "/other"), ["a"])


def test_no_server():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1/models/x"
        with pytest.raises(ServingError, match="No connection to .*llama-keras serve") as caught:
            predict(url, ["a"])
    assert caught.value.status is None


@pytest.mark.parametrize("target", ["localhost:8501", "ftp://x/v1/models/y", "http://", ""])
def test_targets_that_are_no_url(target):
    with pytest.raises(InputError, match="not a server's URL"):
        predict(target, ["a"])


def test_server_that_is_too_slow():
    done = threading.Event()
    with fake_server(200, b"{}", wait=done) as url:
        with pytest.raises(ServingError, match=r"did not answer within 0\.2 s"):
            predict(f"{url}/v1/models/x", ["a"], timeout=0.2)
        done.set()


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (503, b'{"error": "overloaded"}', "answered 503: overloaded"),
        (502, b"<html>bad gateway</html>", "answered 502: <html>"),
        (200, b"not json", "answered 200: not json"),
        (200, b'{"predictions": [1, 2]}', "no list of 1 predictions"),
        (200, b'{"foo": 1}', "no list of 1 predictions"),
    ],
)
def test_servers_that_are_none(status, body, message):
    with fake_server(status, body) as url, pytest.raises(ServingError, match=message):
        predict(f"{url}/v1/models/x", ["a"])


def test_tf_serving_does_not_list_its_models():
    with fake_server(400, b'{"error": "Missing model name in request."}') as url:
        with pytest.raises(InputError, match="does not say which model"):
            predict(url, ["a"])


def test_a_proxy_in_the_environment_is_not_used_for_loopback(tiny_url, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert predict(tiny_url, ["good"]) == [GOOD]


@pytest.fixture(scope="module")
def local(tiny_model):
    return SavedModel(tiny_model)


def test_local_saved_model_equals_the_server(local, tiny_url):
    texts = ["good", "bad 你好", ""]
    assert local.predict(texts, batch_size=2) == predict(tiny_url, texts)
    assert local.predict(["Ab"], "echo") == [{"data_bytes": b"Ab", "text": "ab"}]
    assert local.predict([]) == []


def test_local_run(local):
    outputs = local.run("numbers", x=[[1, 2.5]], add=[3], wide=[1], negate=[False])
    assert outputs["total"].tolist() == [6.5]
    assert local.run(text=["good", b"bad"])["label"].tolist() == [b"positive", b"negative"]


@pytest.mark.parametrize(
    ("signature", "inputs", "message"),
    [
        ("no", {}, "no signature 'no'; it has: classify"),
        ("classify", {"txt": ["a"]}, r"takes the inputs \['text'\]; got \['txt'\]"),
        ("classify", {"text": [1]}, "Input 'text' does not convert to string"),
        ("classify", {"text": "a"}, r"Input 'text' has shape \(\)"),
        ("logarithm", {"x": ["a"]}, "Input 'x' does not convert to float"),
    ],
)
def test_local_mistakes(local, signature, inputs, message):
    with pytest.raises(InputError, match=message):
        local.run(signature, **inputs)


def test_local_predict_needs_a_text_signature(local):
    with pytest.raises(InputError, match="not strings alone"):
        local.predict(["a"], "numbers")


def test_the_client_imports_no_tensorflow():
    code = (
        "import sys, llama_keras.serving as s; s.predict; s.CApiModel; s.find_model\n"
        "print(sorted({'tensorflow', 'keras', 'starlette'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


def run_verb(*arguments, stdin=None):
    from typer.testing import CliRunner

    from llama_keras.cli import build_app

    return CliRunner().invoke(build_app(), ["predict", *arguments], input=stdin)


def test_verb_prints_lines(tiny_url):
    result = run_verb(tiny_url, "so good", "dull\nfilm")
    assert result.output == "positive\t0.7500\tso good\nnegative\t0.8750\tdull film\n"


def test_verb_prints_json_and_reads_stdin(tiny_model):
    result = run_verb(str(tiny_model), "--json", stdin="good\r\n\ndull 你好\n")
    assert json.loads(result.stdout) == [{"text": "good", **GOOD}, {"text": "dull 你好", **BAD}]


def test_verb_prints_other_outputs(tiny_model):
    assert run_verb(str(tiny_model), "a b c", "--signature", "words").output == "3\ta b c\n"
    echoed = run_verb(str(tiny_model), "A", "--signature", "echo", "--json").stdout
    assert json.loads(echoed) == [{"prompt": "A", "text": "a", "data_bytes": {"b64": "QQ=="}}]


@pytest.mark.parametrize(
    ("stdin", "message"), [("", "standard input is empty"), (b"a\xff", "not UTF-8 at byte 1")]
)
def test_verb_without_texts(tiny_model, stdin, message):
    error = run_verb(str(tiny_model), stdin=stdin).exception
    assert isinstance(error, InputError) and message in str(error)


def test_verb_on_a_missing_folder(tmp_path):
    error = run_verb(str(tmp_path / "none"), "a").exception
    assert isinstance(error, InputError) and "does not exist" in str(error)
