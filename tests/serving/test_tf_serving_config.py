import re

import pytest
from google.protobuf import text_format

from llama_keras.errors import InputError
from llama_keras.serving.models_config import read_batching_config, read_models_config
from llama_keras.serving.tf_serving_config import (
    batching_config,
    commands,
    models_config,
    monitoring_config,
    write_serving_config,
)


def test_monitoring_is_at_the_documented_path():
    assert 'path: "/monitoring/prometheus/metrics"' in monitoring_config()
    assert "enable: true" in monitoring_config()


def test_tf_serving_reads_the_models(tmp_path):
    messages = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")
    text = models_config({"mood": tmp_path / "mood", "b": tmp_path / "b"}, base_path="/models")
    config = text_format.Parse(text, messages.ModelServerConfig()).model_config_list.config
    assert [(one.name, one.base_path) for one in config] == [
        ("mood", "/models/mood"),
        ("b", "/models/b"),
    ]
    assert config[0].model_version_policy.latest.num_versions == 1


@pytest.mark.parametrize("most", [1, 2, 3, 32, 48])
def test_batch_sizes_grow_and_end_with_the_largest(tmp_path, most):
    (tmp_path / "batching.config").write_text(batching_config(cores=4, max_batch_size=most))
    batching = read_batching_config(tmp_path / "batching.config")  # refuses what does not fit
    assert batching.allowed_batch_sizes[-1] == batching.max_batch_size == most
    assert batching.num_batch_threads == 4
    assert batching.batch_timeout_micros == 2000


def test_generation_waits_for_no_company():
    assert "batch_timeout_micros { value: 0 }" in batching_config(cores=1, generates=True)


def test_every_number_has_its_reason():
    lines = batching_config(cores=2).splitlines()
    for index, line in enumerate(lines):
        if re.search(r"\d", line) and not line.startswith("#"):
            before = lines[index - 1]
            assert before.startswith("#") or before.startswith("allowed_batch_sizes")


def test_files_for_a_folder_name_it_and_are_read_back(tiny_model, tmp_path):
    files = write_serving_config([tiny_model], output=tmp_path / "config", cores=2)
    assert [file.name for file in files] == [
        "models.config",
        "batching.config",
        "monitoring.config",
    ]
    (source,) = read_models_config(files[0])
    assert source.name == "tiny"
    assert max(source.found()) == 3
    assert commands(tmp_path / "config").count("--model_config_file=") == 1
    assert write_serving_config([tiny_model], output=tmp_path / "config", cores=1) == files


def test_a_container_has_its_own_paths(tmp_path):
    text = models_config({"mood": tmp_path / "mood"}, base_path="/models")
    assert 'base_path: "/models/mood"' in text
    line = commands(tmp_path / "c", models=tmp_path, to="/models")
    assert f"-v {tmp_path}:/models " in line
    assert line.endswith("--monitoring_config_file=/config/monitoring.config")


def test_what_cannot_be_served_is_told(tiny_model, tmp_path):
    with pytest.raises(InputError, match="no model at"):
        write_serving_config([tmp_path / "absent"], output=tmp_path)
    with pytest.raises(InputError, match="Two models have the name 'tiny'"):
        write_serving_config([tiny_model, tiny_model], output=tmp_path)
    (tmp_path / "monitoring.config").write_text("mine")
    with pytest.raises(InputError, match="written by someone else"):
        write_serving_config([tiny_model], output=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["monitoring.config"]
    with pytest.raises(InputError, match="from 1"):
        write_serving_config([tiny_model], output=tmp_path, cores=0)
