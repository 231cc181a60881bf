import json
import shutil
import sys
from pathlib import Path

import pytest
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from typer.testing import CliRunner

from llama_keras.cli import build_app
from llama_keras.errors import InputError
from llama_keras.serving.signature_def import read_saved_model
from llama_keras.serving.verify import SERVER, print_verification, verify
from llama_keras.serving.verify_runs import server_answer
from llama_keras.tasks import TextClassifier

# Answers as TF Serving does, from the manifest of the version in its folder.
_STAND_IN = """#!{python}
import http.server, json, pathlib, sys
options = dict(option[2:].split("=") for option in sys.argv[1:])
version = pathlib.Path(options["model_base_path"]) / "1"
assert (version / "saved_model.pb").is_file() and options["model_name"] == "model"
manifest = json.loads((version / "signature.json").read_text())
example = manifest["example"]

class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, body):
        body = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer({{"model_version_status": [{{"version": "1", "state": "AVAILABLE"}}]}})

    def do_POST(self):
        assert self.path == "/v1/models/model:predict"
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"]
        (row,) = example["request"]["instances"]
        assert asked == {{name: [value] for name, value in row.items()}}
        (row,) = example["response"]["predictions"]
        self.answer({{"outputs": {{name: [value] for name, value in row.items()}}}})

http.server.HTTPServer(("127.0.0.1", int(options["rest_api_port"])), Handler).serve_forever()
"""


def _program(folder: Path, text: str) -> Path:
    folder.mkdir()
    file = folder / SERVER
    file.write_text(text.format(python=sys.executable))
    file.chmod(0o755)
    return file


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = TextClassifier.from_preset(
        "llama-tiny", labels=["negative", "positive"], max_sequence_length=32
    )
    return model, model.export(tmp_path_factory.mktemp("saved") / "sentiment")


@pytest.fixture
def copied(exported, tmp_path):
    return Path(shutil.copytree(exported[1], tmp_path / "sentiment" / "1"))


def _edit(folder: Path, change) -> None:
    file = folder / "signature.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))


def _lines(found) -> dict:
    return {line.check: line for line in found.lines}


def test_a_good_export_answers_as_recorded_everywhere(exported, tmp_path, monkeypatch, capsys):
    model, folder = exported
    bin_folder = _program(tmp_path / "bin", _STAND_IN).parent
    monkeypatch.setenv("PATH", str(bin_folder), prepend=":")
    found = verify(folder.parent, model=model)
    lines = _lines(found)
    assert {line.level for line in found.lines} == {"good"}, found
    asked = ["clean process", "C API", SERVER, "model"]
    assert all(lines[check].difference < 1e-5 for check in asked)
    assert lines["operations"].message.endswith("2 of them TF-Text's.")
    print_verification(found)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 8 and printed[-1] == f"{folder}: 7 good, 0 fail, 0 skip"


def test_a_response_that_differs_fails_with_exit_code_1(copied, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")

    def change(manifest):
        manifest["example"]["response"]["predictions"][0]["scores"][1] -= 0.01

    _edit(copied, change)
    done = CliRunner().invoke(build_app(), ["verify", str(copied), "--json"])
    assert done.exit_code == 1, done.output
    report = json.loads(done.stdout)
    assert report["level"] == "fail"
    lines = {line["check"]: line for line in report["checks"]}
    for check in ("clean process", "C API"):
        assert lines[check]["level"] == "fail"
        assert "largest difference is 0.01, above 0.001" in lines[check]["message"]
        assert lines[check]["difference"] == pytest.approx(0.01, abs=1e-4)
    assert lines["operations"]["level"] == lines["paths"]["level"] == "good"
    assert lines[SERVER] == {
        "check": SERVER,
        "level": "skip",
        "message": f"Not asked: there is no {SERVER} on the PATH.",
        "difference": None,
    }


def test_damaged_variables_fail_in_both_loaders(copied):
    (data,) = (copied / "variables").glob("*.data-*")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 0xFF
    data.write_bytes(content)
    lines = _lines(verify(copied))
    for check in ("clean process", "C API"):
        assert lines[check].level == "fail"
        assert "checksum" in lines[check].message.lower()


def test_ops_paths_and_a_missing_manifest_are_told(copied):
    (copied / "signature.json").unlink()
    graph = copied / "saved_model.pb"
    names = sorted(op.encode() for op in read_saved_model(copied).operations if len(op) == 6)
    content = graph.read_bytes().replace(b"SentencepieceTokenizeOp", b"SentencepieceTokenizeOz")
    # Field 2 of a node, and its length of 6.
    saved = SavedModel.FromString(content.replace(b"\x12\x06" + names[0], b"\x12\x06PyFunc"))
    saved.meta_graphs[0].graph_def.node[0].attr["_from"].s = b"/opt/build/some/layer"
    graph.write_bytes(saved.SerializeToString())
    (copied / "assets").mkdir(exist_ok=True)
    (copied / "assets" / "vocabulary.txt").write_text(
        "and/or\nhttps://a.org/b/c/d\n/home/me/v.txt\n"
    )
    lines = _lines(verify(copied))
    assert lines["manifest"].message.startswith("There is no signature.json")
    unknown = "PyFunc, SentencepieceTokenizeOz"
    assert lines["operations"].message == f"A stock TF Serving does not have {unknown}."
    assert lines["paths"].message.endswith(": /home/me/v.txt, /opt/build/some/layer.")
    assert "SentencepieceTokenizeOz" in lines["clean process"].message
    assert [lines[c].level for c in ("manifest", "clean process", "C API")] == [
        *("fail", "fail", "skip")
    ]


def test_a_server_that_ends_is_told(exported, tmp_path):
    binary = _program(tmp_path / "bin", "#!/bin/sh\necho 'no such op'\nexit 3\n")
    with pytest.raises(InputError, match="did not load it: no such op"):
        server_answer(
            exported[1], binary=str(binary), signature="x", columns={}, outputs=["scores"]
        )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["absent"], "does not exist"),
        (["absent", "--model", "absent"], "no model at 'absent'"),
        (["absent", "--tolerance", "0"], "number above 0"),
    ],
)
def test_what_cannot_be_verified_is_told(arguments, reason):
    done = CliRunner().invoke(build_app(), ["verify", *arguments])
    assert isinstance(done.exception, InputError)
    assert reason in str(done.exception)
