import logging
import os
import signal
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_keras.errors import InputError
from llama_keras.training.callback_states import pack, unpack
from llama_keras.training.checkpoints import Checkpoint, Checkpoints, DamagedError

ARRAYS = {
    "model/0/kernel": np.arange(6, dtype="float32").reshape(2, 3),
    "model/1/bias": np.array([1.5, -2.0], ml_dtypes.bfloat16),
    "model/2/seed": np.array([3, 4], "uint32"),
    "optimizer/0/iteration": np.array(7, "int64"),
    "empty": np.zeros((0, 3), "float16"),
    "flags": np.array([True, False]),
}


def at(step, *, score=None, finished=False, **notes):
    return Checkpoint(step, {**ARRAYS, "step": np.array(step)}, notes, finished, score)


def latest(store) -> Checkpoint:
    found = store.latest()
    assert found is not None
    return found


def test_what_is_written_is_read(tmp_path):
    store = Checkpoints(folder=tmp_path / "a" / "b")
    assert store.latest() is None and store.names() == []
    store.save(at(12, score=0.5, note=[1, "two", None]))
    found = latest(store)
    assert (found.step, found.finished, found.score) == (12, False, 0.5)
    assert found.notes == {"note": [1, "two", None]}
    for name, array in at(12).arrays.items():
        assert found.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(found.arrays[name], array)


def test_the_arrays_are_a_safetensors_file(tmp_path):
    from safetensors.numpy import load_file

    Checkpoints(folder=tmp_path).save(at(1))
    found = load_file(tmp_path / "step-000000001.safetensors")
    np.testing.assert_array_equal(found["model/0/kernel"], ARRAYS["model/0/kernel"])


def test_the_last_and_the_best_are_kept(tmp_path):
    store = Checkpoints(folder=tmp_path, keep=2, best="val_accuracy", best_mode="max")
    for step, score in enumerate([0.1, 0.9, None, 0.3, 0.2], 1):
        store.save(at(step, score=score))
    store.save(at(5, finished=True))
    names = [f"step-{step:09d}" for step in (2, 5)]
    assert store.names() == [*names, f"{names[1]}-end"]
    assert store.best_name() == names[0]
    assert latest(store).finished
    assert len(list(tmp_path.iterdir())) == 6


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_every_flipped_bit_and_every_cut_is_found(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("store")
    store = Checkpoints(folder=folder)
    store.save(at(1))
    store.save(at(2))
    suffix = data.draw(st.sampled_from(["json", "safetensors"]))
    file = folder / f"step-000000002.{suffix}"
    content = bytearray(file.read_bytes())
    if data.draw(st.booleans()):
        bit = data.draw(st.integers(0, 8 * len(content) - 1))
        content[bit // 8] ^= 1 << bit % 8
    else:
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    file.write_bytes(content)
    with pytest.raises(DamagedError):
        store.load("step-000000002")
    assert latest(store).step == 1


def test_a_damaged_one_is_named_and_the_one_before_it_taken(tmp_path, caplog):
    store = Checkpoints(folder=tmp_path, keep=3)
    for step in (1, 2, 3):
        store.save(at(step))
    (tmp_path / "step-000000003.safetensors").unlink()
    (tmp_path / "step-000000002.json").write_text("{}")
    with caplog.at_level(logging.WARNING, logger="llama_keras"):
        assert latest(store).step == 1
    assert [record.getMessage().count("is damaged") for record in caplog.records] == [1, 1]
    assert "step-000000003.json" in caplog.text and "step-000000002.json" in caplog.text
    # A run that goes on from it leaves no later ones.
    store.save(at(2))
    assert store.names() == ["step-000000001", "step-000000002"]
    for file in tmp_path.glob("*.json"):
        file.write_text("")
    with pytest.raises(InputError, match="All 2 checkpoints in .* are damaged; remove the folder"):
        store.latest()


@pytest.mark.parametrize("at_call", range(1, 5))
def test_killed_while_writing_the_one_before_is_whole(tmp_path, at_call):
    code = f"""
import os, signal
import numpy as np
from llama_keras.training.checkpoints import Checkpoint, Checkpoints

store = Checkpoints(folder={str(tmp_path)!r}, keep=1)
store.save(Checkpoint(1, {{"a": np.arange(1000)}}, {{}}))
calls, replace, fsync = 0, os.replace, os.fsync

def die(before):
    def call(*arguments):
        global calls
        calls += 1
        if calls == {at_call}:
            os.kill(os.getpid(), signal.SIGKILL)
        return before(*arguments)
    return call

os.replace, os.fsync = die(replace), die(fsync)
store.save(Checkpoint(2, {{"a": np.arange(1000) + 1}}, {{}}))
"""
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, timeout=120)
    assert done.returncode == -signal.SIGKILL
    store = Checkpoints(folder=tmp_path, keep=1)
    assert latest(store).step == 1
    store.save(at(3))
    left = sorted(file.name for file in tmp_path.iterdir())
    assert left == ["step-000000003.json", "step-000000003.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every": 0}, "every must be 1 or more"),
        ({"keep": 0}, "keep must be 1 or more"),
        ({"minutes": -1.0}, "minutes must be 0 or more"),
        ({"best_mode": "least"}, "must be 'min' or 'max'"),
    ],
)
def test_bad_settings(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        Checkpoints(folder=tmp_path, **arguments)


def test_states_are_packed_as_plain_values_and_arrays():
    state = {
        "best": None,
        "value": np.float32(0.1),
        "rest": [1, 2.5, True, ("x", {"deep": np.arange(2)})],
    }
    arrays = {}
    packed = pack(state, arrays, "callbacks/0")
    assert set(arrays) == {"callbacks/0/value", "callbacks/0/rest/3/1/deep"}
    found = unpack(packed, arrays)
    assert found["best"] is None and type(found["value"]) is np.float32
    assert found["rest"][:3] == [1, 2.5, True] and type(found["rest"][2]) is bool
    assert found["rest"][3][0] == "x" and found["rest"][3][1]["deep"].tolist() == [0, 1]
    with pytest.raises(InputError, match="callbacks/0/what is a object"):
        pack({"what": object()}, {}, "callbacks/0")
