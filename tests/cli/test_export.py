import json

import pytest
from typer.testing import CliRunner

from llama_keras.cli import build_app
from llama_keras.errors import InputError


def invoke(*arguments):
    return CliRunner().invoke(build_app(), ["export", *map(str, arguments)])


def test_a_checkpoint_is_exported_with_settings_of_its_default(tmp_path):
    folder = tmp_path / "story"
    settings = ["--set", "max_new_tokens=5", "--set", "stop=[END, '.']"]
    done = invoke("llama-tiny", "--output", folder, *settings)
    assert done.exit_code == 0, done.output
    assert f"exported {folder / '1'}" in done.stdout
    manifest = json.loads((folder / "1" / "signature.json").read_text())
    assert manifest["defaults"]["max_new_tokens"] == 5
    assert manifest["defaults"]["stop"] == ["END", "."]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["llama-tiny", "--set", "poem=1"], "no setting 'poem'"),
        (["llama-tiny", "--set", "poem"], "SETTING=VALUE"),
        (["llama-tiny", "--format", "litert", "--set", "top_k=1"], "no setting 'top_k'"),
        (["llama-tiny", "--format", "litert", "--set", "rows=two"], "rows is a whole number"),
        (["llama-tiny", "--set", "dtype=int8"], "no setting of --set"),
        (["llama-tiny", "--format", "onnx"], "one of the formats"),
        (["llama-tiny", "--dtype", "int4"], "one of ['float32', 'bfloat16', 'int8']"),
        (["llama-tiny", "runs/absent"], "NAME=MODEL"),
        (["a=llama-tiny", "a=runs/absent"], "a name of its own"),
        (["a=llama-tiny", "b=runs/absent", "--set", "top_k=1"], "no --set"),
        (["a=llama-tiny", "b=llama-tiny", "--measure", "sst2"], "NAME=SUITE_OR_FILE with one of"),
        (["a=llama-tiny", "b=llama-tiny", "--measure", "c=sst2"], "got 'c'"),
        (["runs/absent"], "no model at 'runs/absent'"),
    ],
)
def test_what_cannot_be_exported_is_told(tmp_path, arguments, reason):
    done = invoke(*arguments, "--output", tmp_path / "x")
    assert isinstance(done.exception, InputError)
    assert reason in str(done.exception)
    assert list(tmp_path.iterdir()) == []
