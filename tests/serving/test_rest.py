"""The JSON layer against the behaviour of tensorflow_serving/util/json_tensor.cc."""

import json
from random import Random

import numpy as np
import pytest

from llama_keras.serving.rest import (
    RestError,
    decode_inputs,
    encode_outputs,
    parse_body,
    requested_signature,
)
from llama_keras.serving.signature_def import Signature, TensorSpec


def signature(**inputs):
    specs = {
        name: TensorSpec(tensor=f"{name}:0", dtype=dtype, shape=shape)
        for name, (dtype, shape) in sorted(inputs.items())
    }
    return Signature(inputs=specs, outputs={})


TEXT = signature(text=("string", (-1,)))
FLOATS = signature(x=("float", None))
BOTH = signature(a=("int32", (-1,)), b=("string", (-1,)))


def decode(body, of):
    return decode_inputs(parse_body(body.encode()), signature=of)


def rejected(body, of):
    with pytest.raises(RestError) as caught:
        decode(body, of)
    return caught.value


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        ('{"instances": ["é", "b"]}', True),
        ('{"instances": [{"text": "é"}, {"text": "b"}]}', True),
        ('{"instances": [{"b64": "w6k="}, {"b64": "Yg"}]}', True),
        ('{"instances": [{"text": {"b64": "w6k="}}, {"text": "b"}]}', True),
        ('{"inputs": ["é", "b"]}', False),
        ('{"inputs": {"text": ["é", {"b64": "Yg=="}]}}', False),
    ],
)
def test_one_string_input(body, rows):
    inputs, as_rows = decode(body, TEXT)
    assert inputs["text"].tolist() == ["é".encode(), b"b"]
    assert as_rows is rows


def test_several_inputs():
    rows, _ = decode('{"instances": [{"a": 1, "b": "x"}, {"b": "y", "a": 2}]}', BOTH)
    columns, _ = decode('{"inputs": {"a": [1, 2], "b": ["x", "y"], "unused": 0}}', BOTH)
    for inputs in (rows, columns):
        assert inputs["a"].tolist() == [1, 2] and inputs["a"].dtype == np.int32
        assert inputs["b"].tolist() == [b"x", b"y"]


def test_nested_numbers_and_special_floats():
    inputs, _ = decode('{"instances": [[[1, 2.5]], [[NaN, -Infinity]]]}', FLOATS)
    assert inputs["x"].shape == (2, 1, 2) and inputs["x"].dtype == np.float32
    assert np.isnan(inputs["x"][1, 0, 0]) and inputs["x"][1, 0, 1] == -np.inf
    scalar, _ = decode('{"inputs": 3}', FLOATS)
    assert scalar["x"].shape == () and scalar["x"] == 3
    empty, _ = decode('{"inputs": []}', FLOATS)
    assert empty["x"].shape == (0,)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "JSON Parse error: The document is empty"),
        ("instances = [1, 2]", "JSON Parse error: Invalid value"),
        ('{"instances": ["a"]', "JSON Parse error"),
        ("[1]", "Is not object"),
        ("{}", "Missing 'inputs' or 'instances' key"),
        ('{"inputs": ["a"], "instances": ["a"]}', "expecting only one of"),
        ('{"instances": "a"}', "'instances' to be an list/array"),
        ('{"instances": []}', "No values in 'instances' array"),
        ('{"instances": [1]}', "JSON Value: 1 Type: Number is not of expected type: string"),
        ('{"instances": [null]}', "Type: Null"),
        ('{"instances": ["a", {"text": "b"}]}', "Expecting value/list but got object at item 1"),
        ('{"instances": [{"text": "a"}, "b"]}', "Expecting object but got list at item 1"),
        ('{"instances": [{"txt": "a"}]}', "does not have named input: txt"),
        ('{"instances": [{"b64": "?"}]}', "Unable to base64 decode"),
        ('{"inputs": {"text": [{"b64": "YQ==", "x": 1}]}}', "not formatted correctly for base64"),
        ('{"instances": [["a"], ["b", "c"]]}', "Expecting tensor size: 1 but got: 2"),
        ('{"instances": [["a"]]}', r"Input text has shape \[1, 1\]"),
        ('{"inputs": "a"}', r"shape \[\]"),
        ('{"inputs": {"txt": ["a"]}}', "Missing named input: text in 'inputs' object."),
        ('{"instances": ["\\ud800"]}', "surrogate pair"),
        ('{"instances": [' + "[" * 100_000, "nested too deeply"),
        ('{"instances": [' + "9" * 5000 + "]}", "JSON Parse error"),
    ],
)
def test_bad_text_requests(body, message):
    error = rejected(body, TEXT)
    assert error.status == 400
    with pytest.raises(RestError, match=message):
        raise error


@pytest.mark.parametrize(
    ("body", "of", "message"),
    [
        ('{"instances": [1, 2]}', BOTH, "instances is a plain list"),
        ('{"instances": [{"b64": "YQ=="}]}', BOTH, "named inputs"),
        ('{"instances": [{"a": 1}]}', BOTH, "keys must be equal to: a,b"),
        ('{"inputs": [1, 2]}', BOTH, "inputs is a plain value/list"),
        ('{"inputs": {"a": [1]}}', BOTH, "Missing named input: b"),
        ('{"inputs": {"a": [1.0], "b": ["x"]}}', BOTH, "not of expected type: int32"),
        ('{"inputs": {"a": [true], "b": ["x"]}}', BOTH, "Type: True is not of expected"),
        ('{"inputs": {"a": [2147483648], "b": ["x"]}}', BOTH, "not of expected type: int32"),
        ('{"inputs": [16777216]}', FLOATS, "without loss of precision"),
        ('{"inputs": [1' + "0" * 400 + "]}", FLOATS, "without loss of precision"),
        ('{"inputs": ' + "[" * 70 + "1.0" + "]" * 70 + "}", FLOATS, "lists in each other"),
        ('{"inputs": [1e39]}', FLOATS, "to float without loss of precision"),
        ('{"inputs": [[1], 2]}', FLOATS, "incorrect level: 2"),
        ('{"inputs": [1, [2]]}', FLOATS, "list at unexpected level: 1 expected < 1"),
        ('{"inputs": [[1], [2, 3]]}', FLOATS, "unexpected size: 2 at level: 1 expected size: 1"),
        ('{"instances": [[[1, 2]], [[1], [2]]]}', FLOATS, r"Expecting shape \[1, 2\]"),
    ],
)
def test_bad_typed_requests(body, of, message):
    with pytest.raises(RestError, match=message):
        raise rejected(body, of)


def test_damaged_requests_are_always_refused_with_a_reason():
    """3,000 mutations of good bodies: each decodes or raises a RestError, nothing else."""
    random = Random(7)
    good = [
        b'{"instances": [{"a": 1, "b": "x"}, {"b": {"b64": "w6k="}, "a": 2}]}',
        '{"signature_name": "s", "inputs": {"a": [1, 2], "b": ["x", "你好 \\u00e9"]}}'.encode(),
        b'{"inputs": [[1.5, NaN], [-2e9, 3]], "instances": [[[null]], true, {}]}',
    ]
    tokens = [b"[", b"]", b"{", b"}", b'"', b",", b"\xff", b"1e999", b"null", b'"b64"', b":", b"\\"]
    refused = 0
    for number in range(3000):
        body = bytearray(random.choice(good))
        for _ in range(random.randint(1, 4)):
            at = random.randrange(len(body) + 1)
            body[at : at + random.randint(0, 6)] = random.choice([b"", *tokens])
        try:
            document = parse_body(bytes(body))
            requested_signature(document)
            decode_inputs(document, signature=(TEXT, FLOATS, BOTH)[number % 3])
        except RestError as error:
            refused += 1
            assert 400 <= error.status < 500 and error.message
    assert refused > 2000


def test_body_that_is_not_utf8_and_unsupported_type():
    with pytest.raises(RestError, match="not UTF-8 at offset: 1"):
        parse_body(b'"\xff"')
    assert rejected('{"inputs": [1]}', signature(x=("half", (-1,)))).status == 501


def test_signature_name():
    assert requested_signature({}) == ""
    assert requested_signature({"signature_name": "tag"}) == "tag"
    with pytest.raises(RestError, match="'signature_name' key must be a string"):
        requested_signature({"signature_name": 5})


OUTPUTS = {
    "score": np.array([0.2, 1.0], np.float32),
    "label": np.array([b"a", "é".encode()], object),
    "raw_bytes": np.array([b"\xff", b""], object),
}


def test_rows_out():
    assert json.loads(encode_outputs(OUTPUTS, rows=True)) == {
        "predictions": [
            {"label": "a", "raw_bytes": {"b64": "/w=="}, "score": 0.2},
            {"label": "é", "raw_bytes": {"b64": ""}, "score": 1.0},
        ]
    }


def test_columns_out():
    assert json.loads(encode_outputs(OUTPUTS, rows=False)) == {
        "outputs": {
            "label": ["a", "é"],
            "raw_bytes": [{"b64": "/w=="}, {"b64": ""}],
            "score": [0.2, 1.0],
        }
    }


def test_single_output_goes_unnamed():
    single = {"y": np.array([[1, 2], [3, 4]])}
    assert json.loads(encode_outputs(single, rows=True)) == {"predictions": [[1, 2], [3, 4]]}
    assert json.loads(encode_outputs(single, rows=False)) == {"outputs": [[1, 2], [3, 4]]}
    scalar = {"y": np.float32(2.5)}
    assert json.loads(encode_outputs(scalar, rows=False)) == {"outputs": 2.5}  # pyright: ignore[reportArgumentType]
    assert encode_outputs({"y": np.array([1.0])}, rows=False) == b'{"outputs": [1.0]}\n'


def test_special_floats_are_bare_tokens_as_in_tf_serving():
    body = encode_outputs({"y": np.array([np.nan, np.inf, -np.inf], np.float32)}, rows=False)
    assert body == b'{"outputs": [NaN, Infinity, -Infinity]}\n'


def test_outputs_that_do_not_fit_rows():
    with pytest.raises(RestError, match="has no shape information"):
        encode_outputs({"y": np.array(1.0)}, rows=True)
    unequal = {"a": np.zeros(2), "b": np.zeros(3)}
    with pytest.raises(RestError, match="b has inconsistent batch size: 3 expecting: 2"):
        encode_outputs(unequal, rows=True)


def test_invalid_utf8_in_a_text_output_stays_valid_json():
    assert json.loads(encode_outputs({"text": np.array([b"a\xff"], object)}, rows=False)) == {
        "outputs": ["a�"]
    }
