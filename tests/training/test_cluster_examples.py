"""The scripts of docs/distribution.md that write TF_CONFIG on clusters."""

import os
import re
import subprocess

import pytest
import yaml

from llama_keras.training.strategies import Cluster, read_cluster

# In place of the programs that the scripts call.
PROGRAMS = {
    "llama-keras": '#!/bin/sh\nprintf "%s" "$TF_CONFIG"\n',
    "scontrol": '#!/bin/sh\n[ "$3" = "node[07-09]" ] && printf "node07\\nnode08\\nnode09\\n"\n',
}


@pytest.fixture
def run(tmp_path):
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def run(script, **environment):
        environment["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-euc", script], env=environment, capture_output=True, text=True, check=True
        )
        return read_cluster({"TF_CONFIG": done.stdout})

    return run


@pytest.fixture
def page(repository):
    return (repository / "docs" / "distribution.md").read_text(encoding="utf-8")


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)


def test_json(page):
    (text,) = blocks(page, "json")
    assert read_cluster({"TF_CONFIG": text}).index == 0


def test_slurm(page, run):
    (script,) = (text for text in blocks(page, "sh") if "scontrol" in text)
    names = {"SLURM_JOB_NODELIST": "node[07-09]", "PORT": "20042", "SLURM_PROCID": "2"}
    nodes = ("node07:20042", "node08:20042", "node09:20042")
    assert run(script, **names) == Cluster(nodes, 2)


def test_kubernetes(page, run):
    service, job = yaml.safe_load_all(*blocks(page, "yaml"))
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    workers = {each["name"]: each["value"] for each in container["env"]}
    (script,) = container["args"]
    found = run(script, JOB_COMPLETION_INDEX="3", **workers)
    # Pods of an Indexed Job are called JOB-INDEX, in the domain of the headless service.
    count, name = job["spec"]["completions"], job["metadata"]["name"]
    assert service["metadata"]["name"] == pod["subdomain"]
    assert service["spec"]["selector"] == {"job-name": name} and count == job["spec"]["parallelism"]
    assert found == Cluster(tuple(f"{name}-{i}.{pod['subdomain']}:2222" for i in range(count)), 3)
