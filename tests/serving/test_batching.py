"""Requests that run together get the answers that they get alone."""

import gc
import threading
import time
import weakref
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_keras.errors import InputError
from llama_keras.serving.batching import Batcher, Batching
from llama_keras.serving.manifest import Manifest
from llama_keras.serving.merging import merge, split
from llama_keras.serving.metrics import Metrics
from llama_keras.serving.served import Refused, Servable
from llama_keras.serving.signature_def import Signature, TensorSpec
from tests.serving.fakes import SPELL, FakeModel, texts


@pytest.fixture
def model():
    return FakeModel()


@pytest.fixture
def servable(model) -> Any:
    return Servable("fake", 1, model, Manifest(), ())


@pytest.fixture
def start():
    made = []

    def start(**options):
        made.append(Batcher(Batching(**{"num_batch_threads": 1, **options}), metrics=Metrics()))
        return made[-1]

    yield start
    for batcher in made:
        batcher.close()


@pytest.fixture
def busy(model, servable, start):
    """Gives a batcher whose only thread runs something that waits for `model.gate`."""

    def busy(**options):
        batcher = start(**options)
        model.gate.clear()
        first = batcher.submit(servable, "serving_default", texts("first"), rows=1)
        assert model.began.wait(10)
        return batcher, first

    yield busy
    model.gate.set()


def ask(batcher, servable, *values, **options):
    rows = len(values)
    return batcher.submit(servable, "serving_default", texts(*values), rows=rows, **options)


def assert_alone(outputs, *values):
    alone = FakeModel().run_arrays("serving_default", texts(*values))
    assert outputs.keys() == alone.keys()
    for name, array in alone.items():
        np.testing.assert_array_equal(outputs[name], array, strict=True)


def refusal(future) -> str:
    with pytest.raises(Refused) as caught:
        future.result(timeout=10)
    return caught.value.code


def test_what_waits_runs_as_one_batch(busy, servable, model):
    batcher, first = busy(max_batch_size=4)
    asked = [("a", "long text"), ("b",), ("", "c"), ("d",)]
    futures = [ask(batcher, servable, *values) for values in asked]
    model.gate.set()
    for future, values in zip([first, *futures], [("first",), *asked], strict=True):
        assert_alone(future.result(timeout=10), *values)
    assert model.runs == [1, 3, 3]  # never more than four rows


KINDS = {"ids": "int32", "values": "float"}


def test_an_output_as_wide_as_an_input_is_cut_where_its_filling_is_known():
    takes = {"x": TensorSpec("", "int32", (-1, -1))}
    gives = {name: TensorSpec("", kind, (-1, -1)) for name, kind in KINDS.items()}
    signature = Signature(takes, gives)
    outputs = {"ids": np.array([[7, -1], [8, 9]]), "values": np.array([[1.0, 0], [2, 3]])}
    asked = {"signature": signature, "inputs": {"x": np.zeros((2, 2), "int32")}}
    theirs, ours = (split(outputs, [1, 1], is_ours=is_ours, **asked) for is_ours in (False, True))
    assert theirs is not None and ours is not None
    assert [part["ids"].tolist() for part in theirs] == [[[7, -1]], [[8, 9]]]
    assert [part["ids"].tolist() for part in ours] == [[[7]], [[8, 9]]]
    assert [part["values"].tolist() for part in ours] == [[[1]], [[2, 3]]]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.text("abc", max_size=4), min_size=1, max_size=3), min_size=2))
def test_split_answers_are_those_of_the_single_requests(requests):
    inputs = [texts(*request) for request in requests]
    merged = merge(inputs, fill=20)
    outputs = FakeModel().run_arrays("serving_default", merged)
    parts = split(outputs, [len(r) for r in requests], signature=SPELL, inputs=merged)
    assert parts is not None
    for part, request in zip(parts, requests, strict=True):
        assert_alone(part, *request)


def test_a_bad_row_fails_its_own_request_alone(busy, servable, model):
    batcher, _ = busy()
    good, bad, other = (ask(batcher, servable, *v) for v in [("a",), ("b", "bad"), ("c",)])
    model.gate.set()
    assert_alone(good.result(timeout=10), "a")
    assert_alone(other.result(timeout=10), "c")
    with pytest.raises(Refused, match="a bad row") as caught:
        bad.result(timeout=10)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert model.runs == [1, 4, 1, 2, 1]


def test_a_fault_of_ours_is_told_and_the_thread_lives(start, servable, model, monkeypatch, capsys):
    batcher = start()
    with monkeypatch.context() as patch:
        patch.setattr(model, "run_arrays", lambda *_: 1 / 0)
        assert refusal(ask(batcher, servable, "a")) == "INTERNAL"
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert_alone(ask(batcher, servable, "a").result(timeout=10), "a")


def test_an_answered_request_is_not_kept_by_one_that_still_runs(servable, model, busy):
    batcher, first = busy(num_batch_threads=2)
    gc.collect()
    gc.disable()  # what goes must go by itself
    try:
        model.gate.set()
        future = ask(batcher, servable, "a", timeout=60.0)
        later = ask(batcher, servable, "b", timeout=90.0)
        later.result(timeout=10)
        gone = weakref.ref(later)
        del later
        end = time.monotonic() + 10
        while gone() is not None and time.monotonic() < end:
            time.sleep(0.01)
        assert gone() is None
    finally:
        gc.enable()
    future.result(timeout=10)
    first.result(timeout=10)


def test_a_full_queue_refuses_until_there_is_room(busy, servable, model):
    batcher, _ = busy(max_batch_size=2, max_enqueued_batches=2)
    waiting = [ask(batcher, servable, "a", "b"), ask(batcher, servable, "c", "e")]
    with pytest.raises(Refused, match="queue of fake is full") as caught:
        ask(batcher, servable, "d")
    assert (caught.value.code, caught.value.http_status) == ("RESOURCE_EXHAUSTED", 429)
    waiting[0].cancel()  # its caller has gone: that makes room
    taken = ask(batcher, servable, "d")
    model.gate.set()
    assert_alone(taken.result(timeout=10), "d")
    assert_alone(waiting[1].result(timeout=10), "c", "e")
    assert model.runs == [1, 2, 1]


def test_a_request_larger_than_a_batch_runs_alone(start, servable, model):
    values = list("abcdefgh")
    assert_alone(ask(start(max_batch_size=2), servable, *values).result(timeout=10), *values)
    assert model.runs == [8]


def test_nothing_runs_for_a_caller_who_has_gone(busy, servable, model):
    batcher, _ = busy()
    cancelled = ask(batcher, servable, "a")
    late = ask(batcher, servable, "b", timeout=0.05)
    kept = ask(batcher, servable, "c", timeout=20)
    cancelled.cancel()
    assert refusal(late) == "DEADLINE_EXCEEDED"
    model.gate.set()
    assert_alone(kept.result(timeout=10), "c")
    assert model.runs == [1, 1]


def test_a_deadline_ends_the_wait_for_what_runs(start, servable, model):
    batcher = start()
    model.gate.clear()
    begin = time.monotonic()
    late = ask(batcher, servable, "a", timeout=0.1)
    assert refusal(late) == "DEADLINE_EXCEEDED"
    assert time.monotonic() - begin < 5 and not model.gate.is_set()
    model.gate.set()
    assert_alone(ask(batcher, servable, "b").result(timeout=10), "b")


def test_only_equal_shapes_are_merged_and_scalars_are_not(busy, servable, model):
    batcher, _ = busy()

    def add(signature, array):
        rows = len(array) if array.ndim else 1
        return batcher.submit(servable, signature, {"x": array}, rows=rows)

    narrow = [add("sum", np.full([1, 2], n, "float32")) for n in (1, 2)]
    wide = add("sum", np.ones([1, 3], "float32"))
    scalars = [add("scalar", np.float32(n) + np.zeros([], "float32")) for n in (5, 6)]
    model.gate.set()
    assert [f.result(timeout=10)["y"].tolist() for f in narrow] == [[2.0], [4.0]]
    assert wide.result(timeout=10)["y"].tolist() == [3.0]
    assert [f.result(timeout=10)["y"].tolist() for f in scalars] == [6.0, 7.0]
    assert model.runs == [1, 2, 1, 1, 1]


def test_outputs_that_are_not_per_row_are_never_split(busy, servable, model):
    batcher, _ = busy()
    numbers = [np.array([1, 2], "float32"), np.array([3, 4], "float32")]
    for runs in ([1, 4, 2, 2], [1, 4, 2, 2, 2, 2]):
        futures = [batcher.submit(servable, "total", {"x": x}, rows=2) for x in numbers]
        model.gate.set()
        assert [f.result(timeout=10)["y"].tolist() for f in futures] == [[3.0], [7.0]]
        assert model.runs == runs


def test_waiting_for_company(start, servable, model):
    batcher = start(max_batch_size=2, batch_timeout_micros=20_000_000)
    begin = time.monotonic()
    futures = [ask(batcher, servable, "a"), ask(batcher, servable, "b")]
    for future in futures:
        future.result(timeout=10)
    assert model.runs == [2] and time.monotonic() - begin < 10  # a full batch does not wait
    short = start(batch_timeout_micros=50_000)
    begin = time.monotonic()
    assert_alone(ask(short, servable, "c").result(timeout=10), "c")
    assert time.monotonic() - begin > 0.04


def test_batches_are_filled_to_allowed_sizes(busy, servable, model):
    batcher, _ = busy(max_batch_size=8, allowed_batch_sizes=(4, 8))
    futures = [ask(batcher, servable, letter) for letter in "abc"]
    model.gate.set()
    for letter, future in zip("abc", futures, strict=True):
        assert_alone(future.result(timeout=10), letter)
    assert model.runs == [1, 4]


def test_switched_off(busy, servable, model):
    batcher, _ = busy(enabled=False)
    futures = [ask(batcher, servable, letter) for letter in "abc"]
    model.gate.set()
    for letter, future in zip("abc", futures, strict=True):
        assert_alone(future.result(timeout=10), letter)
    assert model.runs == [1, 1, 1, 1]


def test_closing_refuses_what_waits_and_finishes_what_runs(busy, servable, model):
    batcher, first = busy()
    waiting = ask(batcher, servable, "a")
    closing = threading.Thread(target=batcher.close)
    closing.start()
    assert refusal(waiting) == "UNAVAILABLE"
    model.gate.set()
    closing.join(10)
    assert_alone(first.result(timeout=10), "first")
    with pytest.raises(Refused, match="has stopped"):
        ask(batcher, servable, "b")


def test_many_callers_at_once_each_get_their_own_answer(start, servable, model):
    batcher = start(num_batch_threads=3, max_batch_size=8)
    wrong = []

    def call(seed):
        random = Random(seed)
        for _ in range(100):
            values = ["x" * random.randrange(6) for _ in range(random.randrange(1, 4))]
            try:
                assert_alone(ask(batcher, servable, *values).result(timeout=20), *values)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(model.runs) <= 800


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_batch_size": 0}, "max_batch_size is a number from 1; got 0"),
        ({"batch_timeout_micros": -1}, "not below 0"),
        ({"allowed_batch_sizes": (4, 8)}, "end with max_batch_size, 32"),
    ],
)
def test_bad_settings(options, reason):
    with pytest.raises(InputError, match=reason):
        Batching(**options)
