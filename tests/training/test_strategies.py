import json
import os
import subprocess
import sys

import keras
import pytest
import tensorflow as tf

from llama_keras.errors import InputError
from llama_keras.training.launching import worker_environments
from llama_keras.training.strategies import (
    DISTRIBUTIONS,
    Cluster,
    get_distribution,
    is_chief,
    read_cluster,
    wait_for_workers,
    worker_count,
)

WORKERS = ["10.0.0.1:2222", "10.0.0.2:2222"]


def config(*, kind="worker", index: object = 0, **cluster) -> dict[str, str]:
    cluster = cluster or {"worker": WORKERS}
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


def test_a_cluster_is_read():
    assert read_cluster(config(index=1)) == Cluster(tuple(WORKERS), 1)
    assert read_cluster(config(index="1")).index == 1
    chief = {"chief": ["boss:1"], "worker": WORKERS}
    assert read_cluster(config(kind="chief", **chief)) == Cluster(("boss:1", *WORKERS), 0)
    assert read_cluster(config(kind="worker", **chief)).index == 1


@pytest.mark.parametrize(
    "environment, what",
    [
        ({}, "is not set"),
        ({"TF_CONFIG": " "}, "is not set"),
        ({"TF_CONFIG": "{'cluster'"}, "is not JSON"),
        ({"TF_CONFIG": "[1]"}, "has no object cluster"),
        ({"TF_CONFIG": "{}"}, "has no object cluster"),
        ({"TF_CONFIG": json.dumps({"cluster": {"worker": WORKERS}})}, "has no object task"),
        (config(worker=[]), "no list of addresses cluster.worker"),
        (config(worker="10.0.0.1:2222"), "no list of addresses cluster.worker"),
        (config(worker=["10.0.0.1"]), "'10.0.0.1' in cluster.worker, which is no host:port"),
        (config(worker=["a:0", "b:1"]), "'a:0' in cluster.worker"),
        (config(worker=["a:1", "a:1"]), "has an address twice"),
        (config(worker=WORKERS, ps=["c:1"]), "has cluster.ps"),
        (config(worker=WORKERS, chief=["a:1", "b:1"]), "has 2 addresses in cluster.chief"),
        (config(kind="chief"), "has task.type 'chief'"),
        (config(index=2), "has task.index 2; it must be an integer from 0 to 1"),
        (config(index=-1), "has task.index -1"),
        (config(index=None), "has task.index None"),
        (config(index=True), "has task.index True"),
        (config(index="x"), "has task.index 'x'"),
    ],
)
def test_what_is_wrong_with_a_cluster_is_told(environment, what):
    with pytest.raises(InputError) as caught:
        read_cluster(environment)
    assert what in str(caught.value)
    assert '"task": {"type": "worker", "index": 0}' in str(caught.value)  # the example


@pytest.mark.parametrize(
    "name, words",
    [
        ("tpu", "KERAS_BACKEND=jax"),
        ("parameter_server", "ClusterCoordinator"),
        ("several", "one of"),
    ],
)
def test_strategies_that_cannot_train_are_refused(name, words):
    with pytest.raises(InputError, match=words):
        get_distribution(name)


def test_one_device():
    strategy = get_distribution("none")
    assert strategy.num_replicas_in_sync == 1
    assert is_chief(strategy) and worker_count(strategy) == 1
    wait_for_workers(strategy)
    with strategy.scope():
        keras.Sequential([keras.layers.Dense(1)])
    with pytest.raises(InputError, match="replicas=2"):
        get_distribution("none", replicas=2)


@pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="is about machines without a GPU"
)
def test_mirrored_needs_several_devices():
    with pytest.raises(InputError, match="one CPU and no GPU"):
        get_distribution("mirrored")
    with pytest.raises(InputError, match="2 or more"):
        get_distribution("mirrored", replicas=1)
    _ = tf.ones(()) + 1
    with pytest.raises(InputError, match="first thing in a process"):
        get_distribution("mirrored", replicas=3)


def test_multi_worker_needs_a_cluster_and_a_fresh_process(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(InputError, match="TF_CONFIG is not set"):
        get_distribution("multi_worker")
    monkeypatch.setenv("TF_CONFIG", config(worker=WORKERS[:1])["TF_CONFIG"])
    with pytest.raises(InputError, match="has one worker"):
        get_distribution("multi_worker")
    monkeypatch.setenv("TF_CONFIG", config()["TF_CONFIG"])
    with pytest.raises(InputError, match="leave replicas out"):
        get_distribution("multi_worker", replicas=2)
    _ = tf.ones(()) + 1
    with pytest.raises(InputError, match="multi_worker must be made first thing in a process"):
        get_distribution("multi_worker")


def test_workers_do_not_wait_for_ever(repository):
    (environment, _) = worker_environments(2)
    code = """
from llama_keras.training import strategies
strategies.START_SECONDS = 2
strategies.get_distribution("multi_worker")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repository,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "worker 0: waiting at most 2 s for 127.0.0.1:" in done.stderr
    assert "Timeout" in done.stderr


def test_other_backends_have_their_own(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(InputError, match=r"runs on jax.*keras.distribution"):
        get_distribution("multi_worker")
    assert get_distribution("none").num_replicas_in_sync == 1


def test_every_name_is_in_the_message():
    with pytest.raises(InputError) as caught:
        get_distribution("horovod")
    assert all(name in str(caught.value) for name in DISTRIBUTIONS)


def test_the_cpu_is_shared_out_among_replicas(repository):
    code = """
from llama_keras.training.strategies import get_distribution, is_chief, worker_count
strategy = get_distribution("mirrored", replicas=3)
print(strategy.num_replicas_in_sync, is_chief(strategy), worker_count(strategy))
again = get_distribution("mirrored", replicas=3)  # as many as there are
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "3 True 1\n"
