"""Versions come and go while requests run."""

import gc
import os
import shutil
import threading
import time
import weakref

import pytest

from llama_keras.errors import InputError
from llama_keras.serving.grpc_messages import messages, serialized
from llama_keras.serving.served import Refused, ServedModels
from llama_keras.serving.tensor_proto import fill_tensor
from llama_keras.serving.versions import VersionPolicy
from llama_keras.serving.warmup_replay import WARMUP_FILE
from tests.serving.fakes import FakeModel, add_version, source, texts


@pytest.fixture
def start():
    made = []

    def start(*sources, **options):
        options = {"load": FakeModel, "poll_seconds": 0, **options}
        made.append(ServedModels(sources, **options))
        return made[-1]

    yield start
    for served in made:
        served.close()


def ask(served, name="m", text="abc", **options):
    with served.use(name, **options) as servable:
        outputs = served.submit(servable, "serving_default", texts(text)).result(timeout=10)
    assert outputs["length"].tolist() == [len(text)]
    return int(outputs["version"][0])


def states(served, name="m"):
    return {state.version: state.state for state in served.states(name)}


def refusal(call, *arguments, **options):
    with pytest.raises(Refused) as caught:
        call(*arguments, **options)
    return caught.value.code


def test_versions_are_swapped_under_load_without_a_failed_request(tmp_path, start):
    folder = add_version(tmp_path / "m", 1)
    served = start(source(folder), poll_seconds=0.01)
    served.start()
    failed, seen, stop = [], [], threading.Event()

    def call():
        last, is_last = 0, False
        while not is_last:
            is_last = stop.is_set()  # so that the last version is asked, too
            try:
                version = ask(served)
            except Exception as error:
                failed.append(error)
                continue
            seen.append(version)
            if version < last:
                failed.append(f"{version} after {last}")
            last = version

    threads = [threading.Thread(target=call) for _ in range(6)]
    for thread in threads:
        thread.start()
    for version in range(2, 8):
        add_version(folder, version)
        deadline = time.monotonic() + 10
        while states(served).get(version) != "AVAILABLE" and time.monotonic() < deadline:
            time.sleep(0.005)
    stop.set()
    for thread in threads:
        thread.join()
    assert failed == [] and set(seen) >= {1, 7}
    served.poll()
    assert states(served) == {7: "AVAILABLE", **dict.fromkeys(range(1, 7), "END")}


def test_a_replaced_version_leaves_memory_when_its_last_user_has_gone(tmp_path, start):
    folder = add_version(tmp_path / "m", 1)
    served = start(source(folder))
    with served.use("m") as old:
        model = weakref.ref(old.model)
        add_version(folder, 2)
        served.poll()
        assert states(served) == {1: "UNLOADING", 2: "AVAILABLE"}
        assert ask(served) == 2
        outputs = served.submit(old, "serving_default", texts("x")).result(timeout=10)
        assert outputs["version"].tolist() == [1]  # who holds it goes on with it
        del outputs
    assert states(served) == {1: "END", 2: "AVAILABLE"}
    del old
    gc.collect()
    assert model() is None


def test_a_version_that_does_not_load_is_told_and_the_old_one_stays(tmp_path, start, capsys):
    folder = add_version(tmp_path / "m", 1)
    tried = []

    def load(path):
        tried.append(path.name)
        if path.name == "2" and not (path / "variables").exists():
            raise InputError("no variables")
        return FakeModel(path)

    served = start(source(folder), load=load)
    add_version(folder, 2)
    served.poll()
    served.poll()
    assert tried == ["1", "2"]  # not again and again
    failed = served.states("m")[0]
    assert (failed.version, failed.state, failed.error_code) == (2, "END", "INVALID_ARGUMENT")
    assert failed.error_message == "no variables" and "no variables" in capsys.readouterr().err
    assert ask(served) == 1 and states(served)[1] == "AVAILABLE"
    (folder / "2" / "variables").touch()  # the copy of it has come to its end
    served.poll()
    assert ask(served) == 2
    assert states(served) == {1: "END", 2: "AVAILABLE"}


def test_a_server_starts_with_an_older_version_if_the_newest_does_not_load(tmp_path, start):
    def load(path):
        if path.name == "2":
            raise InputError("cut off")
        return FakeModel(path)

    assert ask(start(source(add_version(tmp_path / "m", 1, 2)), load=load)) == 1
    with pytest.raises(InputError, match="cut off"):
        start(source(add_version(tmp_path / "n", 2)), load=load)


@pytest.mark.parametrize(
    ("policy", "loaded"),
    [
        ("latest", {3}),
        ("latest:2", {2, 3}),
        ("all", {1, 2, 3}),
        ("specific:1,3,9", {1, 3}),
    ],
)
def test_policies(tmp_path, start, policy, loaded):
    folder = add_version(tmp_path / "m", 1, 2, 3)
    served = start(source(folder, policy=VersionPolicy.parse(policy)))
    assert set(states(served)) == loaded
    for version in (1, 2, 3):
        if version in loaded:
            assert ask(served, version=version) == version
        else:
            assert refusal(ask, served, version=version) == "NOT_FOUND"
    assert ask(served) == max(loaded)


def test_versions_that_vanish_are_unloaded_but_a_folder_that_is_away_is_not(
    tmp_path, start, capsys
):
    folder = add_version(tmp_path / "m", 1, 2)
    served = start(source(folder))
    shutil.rmtree(folder / "2")
    served.poll()
    assert ask(served) == 1 and states(served) == {1: "AVAILABLE", 2: "END"}
    os.rename(folder, tmp_path / "away")
    served.poll()
    assert ask(served) == 1 and "Cannot look for versions" in capsys.readouterr().err
    os.rename(tmp_path / "away", folder)
    shutil.rmtree(folder / "1")
    served.poll()
    assert refusal(ask, served) == "NOT_FOUND" and not served.ready
    add_version(folder, 5)
    served.poll()
    assert ask(served) == 5 and served.ready


def test_several_models_and_labels(tmp_path, start):
    first = source(
        add_version(tmp_path / "m", 1, 2),
        policy=VersionPolicy(limit=None),
        labels={"stable": 1, "canary": 2},
    )
    served = start(first, source(add_version(tmp_path / "n", 7)))
    assert served.names() == ["m", "n"]
    assert (ask(served, label="stable"), ask(served, label="canary"), ask(served, "n")) == (1, 2, 7)
    with served.use("m", version=2) as servable:
        assert servable.labels == ("canary",)
    assert refusal(ask, served, label="other") == "INVALID_ARGUMENT"
    assert refusal(ask, served, "n", label="stable") == "INVALID_ARGUMENT"
    assert refusal(ask, served, "o") == "NOT_FOUND"
    assert refusal(served.states, "o") == "NOT_FOUND"
    shutil.rmtree(tmp_path / "m" / "1")
    served.poll()
    assert refusal(ask, served, label="stable") == "INVALID_ARGUMENT"


def test_mistakes_at_the_start(tmp_path, start):
    folder = add_version(tmp_path / "m", 1)
    with pytest.raises(InputError, match="Two models have the name 'm'"):
        start(source(folder), source(folder))
    with pytest.raises(InputError, match="no model to serve"):
        start()
    with pytest.raises(InputError, match="label 'stable' names version 3.*loaded: 1"):
        start(source(folder, labels={"stable": 3}))
    with pytest.raises(InputError, match="none of the versions 4; it holds: 1"):
        start(source(folder, policy=VersionPolicy.parse("specific:4")))
    for wrong in ("newest", "latest:0", "latest:x", "specific", "all:2", "latest:1,2"):
        with pytest.raises(InputError, match="no version policy"):
            VersionPolicy.parse(wrong)


def write_warmup(folder, *, signature="", text="warm"):
    log = messages()["PredictionLog"]()
    request = log.predict_log.request
    request.model_spec.signature_name = signature
    fill_tensor(request.inputs["text"], texts(text)["text"], dtype="string")
    data = serialized(log)
    record = len(data).to_bytes(8, "little") + bytes(4) + data + bytes(4)
    (folder / WARMUP_FILE).parent.mkdir()
    (folder / WARMUP_FILE).write_bytes(record * 2)


def test_warm_up_records_are_replayed_before_the_switch(tmp_path, start):
    folder = add_version(tmp_path / "m", 1)
    write_warmup(folder / "1")
    served = start(source(folder))
    with served.use("m") as servable:
        assert getattr(servable.model, "runs") == [1, 1]  # noqa: B009
    add_version(folder, 2, 3, 4)
    write_warmup(folder / "4", text="bad")
    write_warmup(folder / "3", signature="poem")
    write_warmup(folder / "2")
    file = folder / "2" / WARMUP_FILE
    file.write_bytes(file.read_bytes()[:-5])
    served.poll()
    assert ask(served) == 1
    reasons = [state.error_message for state in served.states("m") if state.state == "END"]
    assert "signature 'poem'" in reasons[1] and "is cut off" in reasons[2] and reasons[0]


def test_draining_refuses_new_requests_and_waits_for_the_others(tmp_path, start):
    served = start(source(add_version(tmp_path / "m", 1)))
    with served.use("m") as servable:
        model: FakeModel = servable.model  # pyright: ignore[reportAssignmentType]
        model.gate.clear()
        future = served.submit(servable, "serving_default", texts("a"))
    assert served.ready
    assert served.drain(0.05) is False
    assert not served.ready and served.draining
    assert refusal(ask, served) == "UNAVAILABLE"
    threading.Timer(0.05, model.gate.set).start()
    assert served.drain(10) is True
    assert future.result(timeout=0)["length"].tolist() == [1]


def test_too_many_rows(tmp_path, start):
    served = start(source(add_version(tmp_path / "m", 1)), max_rows=2)
    with served.use("m") as servable, pytest.raises(Refused, match="has 3 rows; at most 2"):
        served.submit(servable, "serving_default", texts("a", "b", "c"))
    assert ask(served) == 1
    assert served.drain(5)
