import pytest

from llama_keras.errors import InputError
from llama_keras.serving.manifest import read_manifest
from llama_keras.serving.versions import find_model


def make(folder, *versions):
    for version in versions:
        (folder / str(version)).mkdir(parents=True)
        (folder / str(version) / "saved_model.pb").touch()
    return folder


def test_highest_version_as_a_number(tmp_path):
    folder = make(tmp_path / "sentiment", 2, 10)
    (folder / "tmp-11").mkdir()  # being written
    found = find_model(folder)
    assert (found.name, found.version, found.path) == ("sentiment", 10, folder / "10")


def test_one_version(tmp_path):
    folder = make(tmp_path / "sentiment", 2, 10)
    found = find_model(folder / "2", name="other")
    assert (found.name, found.version, found.path) == ("other", 2, folder / "2")


def test_plain_saved_model_and_relative_path(tmp_path, monkeypatch):
    (tmp_path / "saved_model.pb").touch()
    monkeypatch.chdir(tmp_path)
    found = find_model(".")
    assert (found.name, found.version, found.path) == (tmp_path.name, 0, tmp_path)


def test_run_directory(tmp_path):
    make(tmp_path / "export" / "sentiment", 1)
    assert find_model(tmp_path).path == tmp_path / "export" / "sentiment" / "1"
    make(tmp_path / "export" / "topics", 4)
    with pytest.raises(InputError, match="several models \\(sentiment, topics\\)"):
        find_model(tmp_path)
    assert find_model(tmp_path, name="topics").version == 4


def test_bad_folders(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        find_model(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        find_model(tmp_path / "file")
    with pytest.raises(InputError, match="it holds file"):
        find_model(tmp_path)
    (tmp_path / "recipe.yaml").touch()
    with pytest.raises(InputError, match="not been exported.*llama-keras export"):
        find_model(tmp_path)
    make(tmp_path / "model", 1)
    (tmp_path / "model" / "2").mkdir()
    with pytest.raises(InputError, match="2 holds no saved_model.pb"):
        find_model(tmp_path / "model")
    for name in ("", "a/b", "a:b"):
        with pytest.raises(InputError, match="model name"):
            find_model(tmp_path / "model" / "1", name=name)


def test_manifest(tmp_path):
    assert read_manifest(tmp_path).labels == ()
    file = tmp_path / "signature.json"
    file.write_text('{"task": "t", "labels": ["a"], "example": {"request": {"instances": [1]}}}')
    manifest = read_manifest(tmp_path)
    assert (manifest.task, manifest.labels) == ("t", ("a",))
    assert manifest.example_request == {"instances": [1]} and manifest.example_response == {}
    for content in ("[1]", "{", '{"limits": [1]}', '{"weights": "x"}', '{"heads": 3}'):
        file.write_text(content)
        with pytest.raises(InputError, match="signature.json"):
            read_manifest(tmp_path)
