"""The same questions to a model in this process, and the verb `predict`."""

import json

import pytest

from llama_keras.errors import InputError
from llama_keras.serving.client import predict
from llama_keras.serving.local import SavedModel
from tests.serving.fake_http import BAD, BUSY, FINE, GOOD, fake_server


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


def test_verb_asks_over_grpc_and_writes_json_lines(tiny_server, tmp_path):
    file = tmp_path / "answers.jsonl"
    lines = "".join(json.dumps({"text": text, "id": 1}) + "\n" for text in ("good", "dull") * 50)
    options = ["--output", str(file), "--batch-size", "7", "--concurrency", "3"]
    for target in (tiny_server.grpc_url, tiny_server.url):
        result = run_verb(target, *options, stdin=lines)
        assert result.exit_code == 0 and result.stdout == ""
        assert "Wrote 100 answers" in result.stderr
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        answers = [{"input": {"text": "good"}, **GOOD}, {"input": {"text": "dull"}, **BAD}]
        assert rows == answers * 50


def test_verb_keeps_what_came_before_a_server_went_away(tmp_path):
    file = tmp_path / "answers.jsonl"
    described = {"serving_default": {"inputs": {"text": {}}, "outputs": {"a": {}}}}
    metadata = json.dumps({"metadata": {"signature_def": {"signature_def": described}}}).encode()
    with fake_server((200, metadata), FINE, FINE, (500, BUSY)) as server:
        options = ["--batch-size", "1", "--concurrency", "1", "--token", "s3cret"]
        result = run_verb(server.url, *options, "--output", str(file), stdin="x\ny\nz\n")
        assert all(headers["Authorization"] == "Bearer s3cret" for _, headers, _ in server.asked)
    assert isinstance(result.exception, InputError) and "answered 500" in str(result.exception)
    assert [json.loads(line)["text"] for line in file.read_text().splitlines()] == ["x", "y"]


def test_verb_takes_texts_that_look_like_json_for_texts(tiny_model):
    result = run_verb(str(tiny_model), '{"title": "good"}', "{good", "--json")
    assert [row["label"] for row in json.loads(result.stdout)] == ["positive"] * 2
    error = run_verb(str(tiny_model), "a", "--output", "/nowhere/x.jsonl").exception
    assert isinstance(error, InputError) and "cannot be written" in str(error)
