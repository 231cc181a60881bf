import pytest

from llama_keras.errors import InputError
from llama_keras.serving.models_config import read_batching_config, read_models_config
from llama_keras.serving.versions import VersionPolicy, parse_labels
from tests.serving.fakes import add_version

TEXT = """
model_config_list {
  config {
    name: "sentiment"  # a comment
    base_path: "%s"
    model_platform: "tensorflow"
    model_version_policy { specific { versions: 1 versions: 2 } }
    version_labels { key: "stable" value: 1 }
    version_labels { key: "canary" value: 2 }
  }
  config { name: "other" base_path: "m" model_version_policy: { all: {} } }
  config { name: "third" base_path: "m" model_version_policy { latest { num_versions: 3 } } }
  config { name: "plain" base_path: "m" }
}
"""


def test_models(tmp_path):
    folder = add_version(tmp_path / "m", 1, 2)
    file = tmp_path / "models.config"
    file.write_text(TEXT % folder)
    first, *others = read_models_config(file)
    assert (first.name, first.folder) == ("sentiment", folder)
    assert first.policy == VersionPolicy(limit=None, specific=(1, 2))
    assert first.labels == {"stable": 1, "canary": 2}
    assert [source.name for source in others] == ["other", "third", "plain"]
    assert [source.policy.limit for source in others] == [None, 3, 1]
    assert {source.folder for source in others} == {folder}  # beside the file


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "names no model"),
        ("model_config_list { config { name: 'm' } }", "a name and a base_path"),
        ("model_config_list { config { name: 'm' base_path: 'none' } }", "does not exist"),
        (
            "model_config_list { config { name: 'm' base_path: 'm' model_platform: 'torch' } }",
            "platform 'torch' is not served",
        ),
        ("custom_model_config {}", "custom_model_config"),
        ("model_config_list {", "is not a ModelServerConfig"),
    ],
)
def test_bad_models(tmp_path, text, reason):
    file = tmp_path / "models.config"
    file.write_text(text)
    with pytest.raises(InputError, match=reason):
        read_models_config(file)


def test_batching(tmp_path):
    file = tmp_path / "batching.config"
    file.write_text(
        "max_batch_size { value: 8 } batch_timeout_micros { value: 500 }\n"
        "num_batch_threads { value: 3 } max_enqueued_batches { value: 9 }\n"
        "allowed_batch_sizes: 4 allowed_batch_sizes: 8\n"
    )
    found = read_batching_config(file)
    assert (found.max_batch_size, found.batch_timeout_micros) == (8, 500)
    assert (found.num_batch_threads, found.max_enqueued_batches) == (3, 9)
    assert found.allowed_batch_sizes == (4, 8)
    file.write_text("max_batch_size { value: 0 }")
    with pytest.raises(InputError, match="from 1; got 0"):
        read_batching_config(file)
    with pytest.raises(InputError, match="cannot be read"):
        read_batching_config(tmp_path / "none")


def test_labels():
    assert parse_labels(["canary=2,stable=1", "old=0"]) == {"canary": 2, "stable": 1, "old": 0}
    for wrong in ("canary", "=1", "a=b", "a=1,a=2", "a/b=1"):
        with pytest.raises(InputError, match="NAME=VERSION"):
            parse_labels([wrong])
