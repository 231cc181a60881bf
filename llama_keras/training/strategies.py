"""`tf.distribute` strategies by name: what `--strategy` of the command line takes.

Under any of them tasks and `ExactTrainer` models give the weights of one device.
"""

import contextlib
import faulthandler
import functools
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from llama_keras.errors import InputError

# A worker that is silent for so long is taken for dead. (One that is killed in the middle of a step
# is noticed at once.) TensorFlow's 10 s end runs on machines that are merely busy.
HEARTBEAT_SECONDS = 60
# So long workers wait for each other when they start.
START_SECONDS = 600
_EXAMPLE = (
    '{"cluster": {"worker": ["10.0.0.1:12345", "10.0.0.2:12345"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


@dataclass(frozen=True)
class Cluster:
    """What TF_CONFIG says: the processes that train together, and which of them this one is.

    Attributes:
        workers: their addresses, `host:port`, the chief's first.
        index: of this process among them; the chief, who writes files, is 0.
    """

    workers: tuple[str, ...]
    index: int


def read_cluster(environment: Mapping[str, str] | None = None) -> Cluster:
    """Gives the cluster that TF_CONFIG describes.

    Args:
        environment: by default the process's.

    Raises:
        InputError: TF_CONFIG is missing or does not describe one.
    """
    text = (os.environ if environment is None else environment).get("TF_CONFIG", "").strip()
    if not text:
        raise _wrong(
            "is not set; each worker needs it, or start all of one machine by "
            "`llama-keras launch --workers N train …`"
        )
    try:
        config = json.loads(text)
    except ValueError as error:
        raise _wrong(f"is not JSON ({error})") from error
    jobs = _field(config, "cluster", dict)
    for job in jobs:
        if job not in ("chief", "worker"):
            raise _wrong(f"has cluster.{job}, but only workers (and a chief) train here")
    chiefs = _addresses(jobs, "chief") if "chief" in jobs else []
    workers = _addresses(jobs, "worker")
    if len(chiefs) > 1:
        raise _wrong(f"has {len(chiefs)} addresses in cluster.chief; there is one chief")
    if len({*chiefs, *workers}) < len(chiefs) + len(workers):
        raise _wrong("has an address twice in cluster; each worker needs its own")
    task = _field(config, "task", dict)
    here = {"chief": chiefs, "worker": workers}
    if (kind := task.get("type")) not in jobs:
        raise _wrong(f"has task.type {kind!r}; it must be one of {sorted(jobs)}")
    index = task.get("index")
    # A number in quotes is what scripts make of it, and TensorFlow takes it.
    index = int(index) if isinstance(index, str) and index.isdecimal() else index
    count = len(here[kind])
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < count:
        raise _wrong(
            f"has task.index {task.get('index')!r}; it must be an integer from 0 to {count - 1}, "
            f"as there are {count} addresses in cluster.{kind}"
        )
    return Cluster((*chiefs, *workers), index + (len(chiefs) if kind == "worker" else 0))


def _wrong(what: str) -> InputError:
    return InputError(f"TF_CONFIG {what}. It looks like this: {_EXAMPLE}.")


def _field(config, name: str, kind: type) -> Any:
    found = config.get(name) if isinstance(config, dict) else None
    if not isinstance(found, kind):
        raise _wrong(f"has no object {name}; received {found!r}")
    return found


def _addresses(jobs: dict, job: str) -> list[str]:
    found = jobs.get(job)
    if not isinstance(found, list) or not found:
        raise _wrong(f"has no list of addresses cluster.{job}; received {found!r}")
    for address in found:
        host, _, port = str(address).rpartition(":")
        if not (host and port.isdecimal() and 0 < int(port) < 65536):
            raise _wrong(f"has {address!r} in cluster.{job}, which is no host:port")
    return found


def _none(replicas):
    if replicas not in (None, 1):
        raise InputError(
            f"Without a strategy there is one replica; received replicas={replicas}. Choose "
            "the strategy mirrored for several."
        )
    return tf.distribute.get_strategy()


def _mirrored(replicas):
    gpus = tf.config.list_logical_devices("GPU") if tf.config.list_physical_devices("GPU") else []
    if gpus:
        wanted = len(gpus) if replicas is None else replicas
        if not 1 <= wanted <= len(gpus):
            raise InputError(
                f"replicas must be from 1 to {len(gpus)}, as there are {len(gpus)} GPUs; received "
                f"{replicas}."
            )
        return tf.distribute.MirroredStrategy([gpu.name for gpu in gpus[:wanted]])
    if replicas is not None:
        _split_cpu(replicas)
    cpus = tf.config.list_logical_devices("CPU")
    if len(cpus) < 2:
        raise InputError(
            "The strategy mirrored needs several devices, and here is one CPU and no GPU. Choose "
            "the strategy none; or give the number of replicas (--replicas 2) to share out the "
            "CPU, which is good for trying things out and is not faster."
        )
    return tf.distribute.MirroredStrategy([cpu.name for cpu in cpus])


def _split_cpu(replicas: int) -> None:
    if replicas < 2:
        raise InputError(f"replicas must be 2 or more on a CPU; received {replicas}.")
    cpu = tf.config.list_physical_devices("CPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration()] * replicas
    try:
        tf.config.set_logical_device_configuration(cpu, parts)
    except RuntimeError as error:
        if len(tf.config.list_logical_devices("CPU")) != replicas:
            raise _too_late("mirrored with a number of replicas") from error


def _too_late(name: str) -> InputError:
    return InputError(
        f"The strategy {name} must be made first thing in a process, before TensorFlow does "
        "anything else (a tensor, a model, a list of devices); call "
        "get_distribution before all that, or start a new process."
    )


def _multi_worker(replicas):
    cluster = read_cluster()
    if replicas is not None:
        raise InputError(
            "With multi_worker each worker has one replica for each of its GPUs, or one on its "
            "CPU; leave replicas out."
        )
    if len(cluster.workers) == 1:
        raise _wrong("has one worker; choose the strategy mirrored or none for one process")
    kinds = tf.distribute.experimental.CommunicationImplementation
    # AUTO takes NCCL among GPUs; on CPUs there is RING alone.
    kind = kinds.AUTO if tf.config.list_physical_devices("GPU") else kinds.RING
    options = tf.distribute.experimental.CommunicationOptions(implementation=kind)
    try:
        with _patience(), _start_within(START_SECONDS, cluster):
            return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    except RuntimeError as error:
        if "startup" in str(error) or "initialized" in str(error):
            raise _too_late("multi_worker") from error
        raise


@contextlib.contextmanager
def _patience():
    """A block in which a strategy takes our timeouts; TensorFlow has no public way to say them."""
    from tensorflow.python.eager import context

    eager: Any = context.context()
    configure = eager.configure_coordination_service
    eager.configure_coordination_service = functools.partial(
        configure,
        heartbeat_timeout_in_ms=1000 * HEARTBEAT_SECONDS,
        cluster_register_timeout_in_ms=1000 * START_SECONDS,
    )
    try:
        yield
    finally:
        del eager.configure_coordination_service


@contextlib.contextmanager
def _start_within(seconds: int, cluster: Cluster):
    """A block after so many seconds of which the process ends: in it TensorFlow waits for ever."""
    others = [a for place, a in enumerate(cluster.workers) if place != cluster.index]
    names = ", ".join(others)
    print(
        f"worker {cluster.index}: waiting at most {seconds} s for {names}",
        file=sys.stderr,
        flush=True,
    )
    # Of Python only this works meanwhile: TensorFlow holds the interpreter's lock.
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or 2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _tpu(replicas):
    raise InputError(
        "The strategy tpu does not work with TensorFlow 2.21: its package has no kernels for TPUs "
        "(there is no 'ConfigureDistributedTPU'), and the last tensorflow-tpu is for 2.20. Train "
        "on TPUs by JAX: set KERAS_BACKEND=jax and a keras.distribution, see docs/distribution.md."
    )


def _parameter_server(replicas):
    raise InputError(
        "The strategy parameter_server does not work with model.fit of Keras 3, which does not "
        "give its data to a ClusterCoordinator; and as its workers do not wait for each other, "
        "no run could be repeated or resumed exactly. Choose multi_worker. See "
        "docs/distribution.md."
    )


DISTRIBUTIONS: dict[str, Callable[[int | None], tf.distribute.Strategy]] = {
    "none": _none,
    "mirrored": _mirrored,
    "multi_worker": _multi_worker,
    "tpu": _tpu,
    "parameter_server": _parameter_server,
}


def get_distribution(name: str, *, replicas: int | None = None) -> tf.distribute.Strategy:
    """Gives the strategy of a name, in whose `scope()` a model is built and loaded.

    Args:
        name: `none` (one device); `mirrored` (all GPUs of this machine, or shares of its CPU);
            `multi_worker` (the processes of TF_CONFIG, all of which run the same program). `tpu`
            and `parameter_server` are refused with the reason.
        replicas: of `mirrored`, by default one for each GPU.

    Raises:
        InputError: there is no such strategy, or it does not work here.

    Example:
    ```python
    from llama_keras.tasks import TextClassifier
    from llama_keras.training.strategies import get_distribution

    with get_distribution("none").scope():
        model = TextClassifier.from_preset("llama-tiny", labels=["bad", "good"])
    ```
    """
    if name not in DISTRIBUTIONS:
        raise InputError(f"strategy must be one of {sorted(DISTRIBUTIONS)}; received {name!r}.")
    backend = keras.backend.backend()
    if backend != "tensorflow" and name in ("mirrored", "multi_worker"):
        raise InputError(
            f"The strategy {name} is TensorFlow's, and Keras runs on {backend}. Set "
            "KERAS_BACKEND=tensorflow, or use a keras.distribution; see docs/distribution.md."
        )
    return DISTRIBUTIONS[name](replicas)


def wait_for_workers(strategy: tf.distribute.Strategy) -> None:
    """Waits until every worker has come here; one process goes on at once.

    A worker that ends while others are at work looks like a crash to them, so a program of several
    workers ends with this.
    """
    if worker_count(strategy) == 1:
        return

    @tf.function(autograph=False)
    def meet():
        return strategy.run(lambda: _replica().all_reduce(tf.distribute.ReduceOp.SUM, tf.ones(())))

    strategy.experimental_local_results(meet())


def check_agreement(strategy: tf.distribute.Strategy, value: int, *, what: str) -> None:
    """Raises `InputError` on every worker where they do not all have the same number.

    Args:
        strategy: of the workers, all of which call this.
        value: 0 … 2^31 - 1.
        what: the number is, for the message.
    """
    if worker_count(strategy) == 1:
        return

    @tf.function(autograph=False)
    def ask(number):
        def of_replica():
            one = tf.one_hot(_replica().replica_id_in_sync_group, count, dtype=tf.int32) * number
            return _replica().all_reduce(tf.distribute.ReduceOp.SUM, one)

        return strategy.run(of_replica)

    count = strategy.num_replicas_in_sync
    found = strategy.experimental_local_results(ask(tf.constant(value, tf.int32)))[0].numpy()
    if len(set(found.tolist())) > 1:
        raise InputError(
            f"The workers do not agree on {what}: they found {found.tolist()}. They need one "
            "folder that all of them see alike; start them again when the file system has caught "
            "up."
        )


def _replica() -> Any:
    return tf.distribute.get_replica_context()


def worker_count(strategy: tf.distribute.Strategy) -> int:
    """Gives how many processes train together."""
    resolver: Any = strategy.cluster_resolver
    jobs = resolver.cluster_spec().as_dict() if resolver else {}
    return sum(len(jobs.get(job, ())) for job in ("chief", "worker")) or 1


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Says whether this process is the one that writes files; all of them may read."""
    resolver: Any = strategy.cluster_resolver
    jobs = resolver.cluster_spec().as_dict() if resolver else {}
    first = "chief" if jobs.get("chief") else "worker"
    return not jobs or (resolver.task_type == first and resolver.task_id == 0)
