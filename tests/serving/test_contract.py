"""What TF Serving's REST documents and implements, request by request.

Sources: https://www.tensorflow.org/tfx/serving/api_rest; util/json_tensor.cc (bodies),
model_servers/http_rest_api_util.cc (paths) and http_server.cc (statuses) of tensorflow/serving.
"""

import json
from typing import Any, NamedTuple

import httpx
import pytest

GOOD = {"label": "positive", "score": 0.75, "scores": [0.25, 0.75]}
BAD = {"label": "negative", "score": 0.875, "scores": [0.875, 0.125]}
STATUS = {
    "model_version_status": [
        {
            "version": "3",
            "state": "AVAILABLE",
            "status": {"error_code": "OK", "error_message": ""},
        }
    ]
}
ROW = {"x": [1, 2], "add": 3, "wide": 2**40, "negate": False}
SUM = {"flag": True, "total": 6.0, "wide": 2**40 + 1}


def named(signature: Any, **body: Any) -> dict[str, Any]:
    return {"signature_name": signature, **body}


class Case(NamedTuple):
    """A request to `/v1/models…` and its answer: the whole body, or a part of its error."""

    path: str
    body: Any
    answer: Any
    status: int = 200
    method: str = "POST"


ANSWERED = {
    "rows of the only input": Case(":predict", {"instances": ["good", "x"]}, [GOOD, BAD]),
    "batch of one": Case(":predict", {"instances": ["good"]}, [GOOD]),
    "rows by name": Case(":predict", {"instances": [{"text": "x"}, {"text": "good"}]}, [BAD, GOOD]),
    "of a version": Case("/versions/3:predict", {"instances": ["good"]}, [GOOD]),
    "of a signature": Case(":predict", named("classify", instances=["x"]), [BAD]),
    "signature without a name": Case(":predict", named("", instances=["x"]), [BAD]),
    "columns of the only input": Case(
        ":predict",
        {"inputs": ["good"]},
        {"label": ["positive"], "score": [0.75], "scores": [[0.25, 0.75]]},
    ),
    "columns by name": Case(
        ":predict",
        {"inputs": {"text": ["x"], "unknown": 1}},
        {"label": ["negative"], "score": [0.875], "scores": [[0.875, 0.125]]},
    ),
    "several inputs in rows": Case(":predict", named("numbers", instances=[ROW]), [SUM]),
    "several inputs in columns": Case(
        ":predict",
        named("numbers", inputs={name: [value] for name, value in ROW.items()}),
        {name: [value] for name, value in SUM.items()},
    ),
    "only output in rows": Case(":predict", named("words", instances=["a b", "c"]), [2, 1]),
    "only output in columns": Case(":predict", named("words", inputs=["a b"]), {"": [2]}),
    "scalar output in columns": Case(":predict", named("mean", inputs=[1, 3]), {"": 2.0}),
    "base64 in": Case(":predict", {"instances": [{"b64": "Z29vZA=="}]}, [GOOD]),
    "base64 by name": Case(":predict", {"instances": [{"text": {"b64": "Z29vZA"}}]}, [GOOD]),
    "base64 out": Case(
        ":predict",
        named("echo", instances=[{"b64": "QQ=="}, "Né"]),
        [
            {"data_bytes": {"b64": "QQ=="}, "text": "a"},
            {"data_bytes": {"b64": "TsOp"}, "text": "né"},
        ],
    ),
    "no rows in columns": Case(
        ":predict", {"inputs": []}, {"label": [], "score": [], "scores": []}
    ),
    "whole numbers for decimals": Case(":predict", named("logarithm", instances=[1]), [0.0]),
    "status": Case("", None, STATUS, method="GET"),
    "status of a version": Case("/versions/3", None, STATUS, method="GET"),
}


@pytest.fixture(scope="module")
def http(tiny_server):
    base = tiny_server.url.removesuffix("/tiny")
    with httpx.Client(base_url=base, trust_env=False, timeout=30) as client:
        yield client


def base(http):
    return str(http.base_url).rstrip("/")


def ask(http, case, model="/tiny"):
    content = case.body if isinstance(case.body, bytes) else json.dumps(case.body)
    if case.body is None:
        content = None
    response = http.request(case.method, base(http) + model + case.path, content=content)
    assert response.headers["content-type"].startswith("application/json")
    return response.status_code, response.json()


@pytest.mark.parametrize("case", ANSWERED.values(), ids=ANSWERED)
def test_what_is_answered(http, case):
    status, body = ask(http, case)
    wanted: Any = case.answer
    if case.method == "POST":
        wanted = {"predictions" if isinstance(wanted, list) else "outputs": wanted}
        if wanted.get("outputs", {}).keys() == {""}:  # an only output goes without its name
            wanted["outputs"] = wanted["outputs"][""]
    assert (status, body) == (200, wanted)


NOT_TEXT = "is not of expected type: string"
REFUSED = {
    # Bodies (json_tensor.cc and its tests)
    "empty body": Case(":predict", b"", "JSON Parse error: The document is empty", 400),
    "no JSON": Case(":predict", b"instances = [1, 2]", "JSON Parse error: Invalid value", 400),
    "cut JSON": Case(":predict", b'{"instances": ["a"', "JSON Parse error", 400),
    "two documents": Case(":predict", b'{"instances": ["a"]} {}', "JSON Parse error", 400),
    "single quotes": Case(":predict", b"{'instances': ['a']}", "JSON Parse error", 400),
    "not UTF-8": Case(":predict", b'{"instances": ["\xff"]}', "JSON Parse error", 400),
    "no object": Case(":predict", ["a"], "Is not object", 400),
    "neither key": Case(":predict", {"rows": ["a"]}, "Missing 'inputs' or 'instances' key", 400),
    "both keys": Case(
        ":predict",
        {"instances": ["a"], "inputs": ["a"]},
        "expecting only one of 'inputs' or 'instances' keys",
        400,
    ),
    "rows that are no list": Case(":predict", {"instances": "a"}, "to be an list/array", 400),
    "no rows": Case(":predict", {"instances": []}, "No values in 'instances' array", 400),
    "null": Case(":predict", {"instances": [None]}, f"Type: Null {NOT_TEXT}", 400),
    "number for text": Case(":predict", {"instances": [1]}, f"Type: Number {NOT_TEXT}", 400),
    "bool for text": Case(":predict", {"instances": [True]}, f"Type: True {NOT_TEXT}", 400),
    "text for number": Case(
        ":predict", named("logarithm", instances=["1"]), "Type: String is not of expected", 400
    ),
    "decimal for whole number": Case(
        ":predict", named("pick", inputs=[1.5]), "Type: Number is not of expected type: int32", 400
    ),
    "number for bool": Case(
        ":predict", named("numbers", instances=[{**ROW, "negate": 1}]), "expected type: bool", 400
    ),
    "number beyond its type": Case(
        ":predict", named("pick", inputs=[2**31]), "is not of expected type: int32", 400
    ),
    "lossy number": Case(
        ":predict", named("logarithm", inputs=[2**24]), "without loss of precision", 400
    ),
    "scalar for a batch": Case(":predict", {"inputs": "a"}, "", 400),
    "wrong rank": Case(":predict", {"instances": [["a"]]}, "", 400),
    "wrong size": Case(":predict", named("numbers", instances=[{**ROW, "x": [1, 2, 3]}]), "", 400),
    "unequal rows": Case(
        ":predict",
        named("numbers", instances=[ROW, {**ROW, "x": [1]}]),
        "Failed to process element: 1 key: x of 'instances' list. Error: ",
        400,
    ),
    "unequal lists": Case(
        ":predict",
        named("numbers", inputs={**{n: [v, v] for n, v in ROW.items()}, "x": [[1, 2], [3]]}),
        "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
        400,
    ),
    "unknown input": Case(
        ":predict", {"instances": [{"txt": "a"}]}, "does not have named input: txt", 400
    ),
    "missing input in rows": Case(
        ":predict",
        named("numbers", instances=[{"add": 1, "wide": 2, "x": [1, 2]}]),
        "keys must be equal to: add,negate,wide,x",
        400,
    ),
    "missing input in columns": Case(
        ":predict",
        named("numbers", inputs={"add": [1], "wide": [2], "x": [[1, 2]]}),
        "Missing named input: negate in 'inputs' object.",
        400,
    ),
    "list for several inputs in rows": Case(
        ":predict", named("numbers", instances=[1]), "instances is a plain list, but expecting", 400
    ),
    "list for several inputs in columns": Case(
        ":predict", named("numbers", inputs=[1]), "inputs is a plain value/list, but expecting", 400
    ),
    "object after list": Case(
        ":predict",
        {"instances": ["a", {"text": "b"}]},
        "Expecting value/list but got object at item 1 of input list",
        400,
    ),
    "list after object": Case(
        ":predict",
        {"instances": [{"text": "b"}, "a"]},
        "Expecting object but got list at item 1 of input list",
        400,
    ),
    "no base64": Case(":predict", {"instances": [{"b64": "?"}]}, "Unable to base64 decode", 400),
    "base64 of a number": Case(
        ":predict", {"inputs": {"text": [{"b64": 5}]}}, "not formatted correctly for base64", 400
    ),
    "scalar output in rows": Case(
        ":predict", named("mean", instances=[1, 2]), "mean has no shape information", 400
    ),
    "error of the graph": Case(":predict", named("pick", instances=[5]), "index too large", 400),
    # Names
    "unknown signature": Case(
        ":predict",
        named("poem", instances=["a"]),
        'Serving signature name: "poem" not found in signature def',
        400,
    ),
    "signature that is no string": Case(
        ":predict",
        named(5, instances=["a"]),
        "'signature_name' key must be a string value",
        400,
    ),
    "unknown signature before keys": Case(":predict", named("poem"), '"poem" not found', 400),
    "unknown version": Case(
        "/versions/9:predict",
        {"instances": ["a"]},
        "Servable not found for request: Specific(tiny, 9)",
        404,
    ),
    "version beyond 63 bits": Case(
        f"/versions/{2**64 - 1}:predict", {"instances": ["a"]}, "Failed to convert version", 400
    ),
    "unknown label": Case(
        "/labels/stable:predict",
        {"instances": ["a"]},
        "Unrecognized servable version label: stable",
        400,
    ),
    "status of an unknown version": Case(
        "/versions/9", None, "Could not find version 9 of model tiny", 404, "GET"
    ),
    "metadata of an unknown version": Case(
        "/versions/9/metadata", None, "Specific(tiny, 9)", 404, "GET"
    ),
    # Paths and methods (http_rest_api_handler_test.cc)
    "version that is no number": Case("/versions/x:predict", {}, "Malformed request: POST", 400),
    "version misspelt": Case("/version/3:predict", {}, "Malformed request: POST", 400),
    "version and label": Case("/versions/3/labels/a:predict", {}, "Malformed request: POST", 400),
    "no verb": Case("", {"instances": ["a"]}, "Malformed request: POST", 400),
    "unknown verb": Case(":explain", {"instances": ["a"]}, "Malformed request: POST", 400),
    "verb by GET": Case(":predict", None, "Malformed request: GET", 400, "GET"),
    "metadata by POST": Case("/metadata", {}, "Malformed request: POST", 400),
    "other methods": Case(":predict", {}, "Malformed request: PUT", 400, "PUT"),
    "deleting": Case("", None, "Malformed request: DELETE", 400, "DELETE"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_is_refused(http, case):
    status, body = ask(http, case)
    assert (status, list(body)) == (case.status, ["error"])
    assert case.answer in body["error"] and body["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("POST", "/foo:predict", 404, "Servable not found for request: Latest(foo)"),
        (
            "POST",
            "/foo/versions/50:predict",
            404,
            "Servable not found for request: Specific(foo, 50)",
        ),
        ("GET", "/foo", 404, "Could not find any versions of model foo"),
        ("GET", "/foo/metadata", 404, "Servable not found for request: Latest(foo)"),
        ("POST", "", 400, "Malformed request: POST"),
    ],
)
def test_unknown_models(http, method, path, status, reason):
    found = ask(
        http, Case("", {"instances": [1]} if method == "POST" else None, "", 0, method), path
    )
    assert found[0] == status and reason in found[1]["error"]


def test_metadata(http):
    status, body = ask(http, Case("/metadata", None, "", 0, "GET"))
    assert status == 200 and body["model_spec"] == {
        "name": "tiny",
        "signature_name": "",
        "version": "3",
    }
    table = body["metadata"]["signature_def"]["signature_def"]["numbers"]
    assert table["inputs"]["x"]["dtype"] == "DT_FLOAT"
    assert table["inputs"]["x"]["tensor_shape"] == {
        "dim": [{"size": "-1", "name": ""}, {"size": "2", "name": ""}],
        "unknown_rank": False,
    }
    assert table["method_name"] == "tensorflow/serving/predict"


def test_numbers_are_written_as_tf_serving_writes_them(http):
    """NaN and Infinity as bare words; decimals shortest, with `.0` where they are whole."""
    body = b'{"signature_name": "logarithm", "inputs": [-1, 0, Infinity, 1]}'
    text = http.post("/tiny:predict", content=body).text
    assert "".join(text.split()) == '{"outputs":[NaN,-Infinity,Infinity,0.0]}'
    row = {**ROW, "x": [0.1, 0.1], "add": 0}
    text = http.post("/tiny:predict", json=named("numbers", instances=[row])).text
    assert '"total": 0.2,' in text
