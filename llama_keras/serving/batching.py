"""Dynamic batching: requests that wait at the same time for the same graph run as one batch.

The settings have TF Serving's names (tensorflow_serving/batching, `BatchingParameters`). A thread
that is free takes what waits; while all are busy, requests pile up and the next batch is larger, so
that no request waits for company unless `batch_timeout_micros` says so.
"""

import heapq
import itertools
import os
import sys
import threading
import time
import traceback
import weakref
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ..errors import InputError
from .merging import can_merge, merge, shapes_of, split
from .metrics import Metrics
from .refused import Refused, refusal_of


@dataclass(frozen=True)
class Batching:
    """How requests are put together.

    Attributes:
        enabled: False runs each request alone.
        max_batch_size: rows that are put together; a request with more runs alone.
        batch_timeout_micros: how long the first request of a batch waits for others, in
            microseconds.
        max_enqueued_batches: batches of that size that may wait for one signature of one version;
            requests beyond that are refused.
        num_batch_threads: batches that run at once, over all models.
        allowed_batch_sizes: a merged batch is filled up to the next of these with copies of a row;
            none: no filling.

    Raises:
        InputError: a number is out of range.
    """

    enabled: bool = True
    max_batch_size: int = 32
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 128
    num_batch_threads: int = field(default_factory=lambda: max(2, os.cpu_count() or 2))
    allowed_batch_sizes: tuple[int, ...] = ()

    def __post_init__(self):
        for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is a number from 1; got {getattr(self, name)}.")
        if self.batch_timeout_micros < 0:
            raise InputError(
                f"batch_timeout_micros is not below 0; got {self.batch_timeout_micros}."
            )
        sizes = self.allowed_batch_sizes
        if sizes and (list(sizes) != sorted(set(sizes)) or sizes[-1] != self.max_batch_size):
            raise InputError(
                f"allowed_batch_sizes grow and end with max_batch_size, {self.max_batch_size}; "
                f"got {list(sizes)}."
            )

    def filled(self, rows: int) -> int:
        """Gives the rows that a batch of so many is filled up to."""
        return next((size for size in self.allowed_batch_sizes if size >= rows), rows)


@dataclass(eq=False)
class _Task:
    servable: Any
    signature: str
    inputs: Mapping[str, np.ndarray]
    rows: int
    cost: int  # of the queue's room, in rows
    deadline: float | None
    queued: float = field(default_factory=time.monotonic)
    future: Future = field(default_factory=Future)

    def finish(self, outputs: Any = None, error: BaseException | None = None) -> None:
        _finish(self.future, outputs, error)


def _finish(future: Future, outputs: Any = None, error: BaseException | None = None) -> None:
    try:
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(outputs)
    except InvalidStateError:
        pass  # the caller has gone, or the deadline has passed: nobody wants it


class Batcher:
    """Runs requests in threads of its own.

    Args:
        batching: the settings.
        metrics: where counts go.
    """

    def __init__(self, batching: Batching, *, metrics: Metrics):
        self._batching, self._metrics = batching, metrics
        self._changed = threading.Condition()
        self._queues: dict[Any, deque[_Task]] = {}
        self._waiting: Counter[tuple[Any, str]] = Counter()  # (servable, signature) -> cost
        # Signatures that were found not to answer row by row, for as long as the version lives.
        self._unmergeable = weakref.WeakKeyDictionary()
        self._deadlines = _Deadlines()
        self._unanswered: set[Future] = set()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"batch-{number}", daemon=True)
            for number in range(batching.num_batch_threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(
        self,
        servable: Any,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        *,
        rows: int,
        timeout: float | None = None,
    ) -> Future:
        """Puts a request into the queue; see `ServedModels.submit`."""
        merged = self._batching.enabled and can_merge(servable.model.signatures[signature], inputs)
        deadline = None if timeout is None else time.monotonic() + timeout
        cost = max(rows, 1) if merged else max(rows, self._batching.max_batch_size)
        task = _Task(servable, signature, inputs, rows, cost, deadline)
        # Not the task itself: a future keeps its callbacks, and the task has the arrays.
        counted = partial(self._count, servable.name, signature, rows, task.queued)
        task.future.add_done_callback(counted)
        place = (servable, signature)
        with self._changed:
            if self._closed:
                error = Refused("UNAVAILABLE", "The server has stopped; ask another one")
            elif not self._has_room(place, cost):
                error = Refused(
                    "RESOURCE_EXHAUSTED",
                    f"The queue of {servable.name} is full ({self._waiting[place]} rows wait); "
                    "try again later",
                )
            else:
                error = None
                whole = signature in self._unmergeable.get(servable, ())
                shapes = shapes_of(inputs) if merged and not whole else None
                self._unanswered.add(task.future)
                self._queues.setdefault((*place, shapes), deque()).append(task)
                self._wait_more(place, cost)
                self._changed.notify()
        if error is not None:
            task.finish(error=error)
            raise error
        if deadline is not None:
            self._deadlines.add(deadline, task.future)
        return task.future

    def close(self, *, timeout: float = 5.0) -> None:
        """Refuses what waits, and lets the threads finish what runs, for so many seconds."""
        end = time.monotonic() + timeout
        with self._changed:
            self._closed = True
            left = [task for queue in self._queues.values() for task in queue]
            self._queues.clear()
            self._changed.notify_all()
        for task in left:
            task.finish(error=Refused("UNAVAILABLE", "The server has stopped; ask another one"))
        self._deadlines.close()
        for thread in self._threads:
            thread.join(timeout=max(0.0, end - time.monotonic()))

    def abandon(self) -> None:
        """Refuses all that is not answered, also what runs now."""
        with self._changed:
            left = list(self._unanswered)
        for future in left:
            _finish(
                future, error=Refused("UNAVAILABLE", "The server is shutting down; ask another")
            )

    def _has_room(self, place: tuple[Any, str], cost: int) -> bool:
        room = self._batching.max_enqueued_batches * self._batching.max_batch_size
        if self._waiting[place] and self._waiting[place] + cost > room:
            self._remove_dead(place)
        return not self._waiting[place] or self._waiting[place] + cost <= room

    def _remove_dead(self, place: tuple[Any, str]) -> None:
        for key in [key for key in self._queues if key[:2] == place]:
            queue = self._queues[key]
            for task in [task for task in queue if task.future.done()]:
                queue.remove(task)
                self._drop(task)
            if not queue:
                del self._queues[key]

    def _drop(self, task: _Task) -> None:
        self._wait_more((task.servable, task.signature), -task.cost)
        self._metrics.request_dropped(task.servable.name, task.signature)

    def _wait_more(self, place: tuple[Any, str], cost: int) -> None:
        self._waiting[place] += cost
        self._metrics.set_queue(place[0].name, place[1], self._waiting[place])
        if not self._waiting[place]:
            del self._waiting[place]  # an unloaded version must not stay in memory for this

    def _count(self, name: str, signature: str, rows: int, queued: float, future: Future) -> None:
        try:
            error = future.exception()
            code = "OK" if error is None else getattr(error, "code", "INTERNAL")
        except CancelledError:
            code = "CANCELLED"
        with self._changed:
            self._unanswered.discard(future)
        seconds = time.monotonic() - queued
        self._metrics.request_done(name, signature, code=code, seconds=seconds, rows=rows)

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            if batch:
                self._run(batch)
            del batch  # it holds a version that may be unloaded while this thread waits

    def _next_batch(self) -> list[_Task] | None:
        with self._changed:
            while not self._closed:
                key, wait = self._oldest_ready()
                if key is not None:
                    return self._take(key)
                self._changed.wait(wait)
        return None

    def _oldest_ready(self) -> tuple[Any, float | None]:
        """Gives the queue to serve now, or how long to wait for one."""
        now, oldest, key, wait = time.monotonic(), float("inf"), None, None
        for candidate, queue in self._queues.items():
            left = queue[0].queued + self._batching.batch_timeout_micros / 1e6 - now
            full = candidate[2] is None or self._is_full(queue)
            if (full or left <= 0) and queue[0].queued < oldest:
                oldest, key = queue[0].queued, candidate
            elif not full and left > 0:
                wait = left if wait is None else min(wait, left)
        return key, wait

    def _is_full(self, queue: Iterable[_Task]) -> bool:
        sums = itertools.accumulate(task.rows for task in queue)
        return any(rows >= self._batching.max_batch_size for rows in sums)

    def _take(self, key: Any) -> list[_Task]:
        queue, batch, rows = self._queues[key], [], 0
        while queue:
            task = queue[0]
            if task.future.done():
                self._drop(queue.popleft())
                continue
            full = key[2] is None or rows + task.rows > self._batching.max_batch_size
            if batch and full:
                break
            batch.append(queue.popleft())
            rows += task.rows
            self._wait_more(key[:2], -task.cost)
        if not queue:
            del self._queues[key]
        else:
            self._changed.notify()
        return batch

    def _run(self, batch: list[_Task]) -> None:
        if len(batch) == 1:
            self._run_one(batch[0])
            return
        first = batch[0]
        rows = [task.rows for task in batch]
        try:
            inputs = merge([task.inputs for task in batch], fill=self._batching.filled(sum(rows)))
            outputs = self._timed(first, inputs, sum(rows))
            specs = first.servable.model.signatures[first.signature]
            is_ours = bool(first.servable.manifest.task)  # only our exports tell one
            parts = split(outputs, rows, signature=specs, inputs=inputs, is_ours=is_ours)
        except Exception:  # one row may be the cause: its neighbours must not pay for it
            for task in batch:
                self._run_one(task)
            return
        if parts is None:  # an output has no row for each row of the inputs
            with self._changed:
                self._unmergeable.setdefault(first.servable, set()).add(first.signature)
            for task in batch:
                self._run_one(task)
            return
        for task, part in zip(batch, parts, strict=True):
            task.finish(part)

    def _run_one(self, task: _Task) -> None:
        if task.future.done():
            self._metrics.request_dropped(task.servable.name, task.signature)
            return
        try:
            task.finish(self._timed(task, task.inputs, task.rows))
        except Exception as error:
            refusal = refusal_of(error)
            if refusal is None:  # a fault of ours: tell the operator, keep serving
                with suppress(OSError, ValueError):  # nobody may be reading
                    traceback.print_exception(error, file=sys.stderr)
                refusal = Refused("INTERNAL", f"{type(error).__name__}: {error}")
            task.finish(error=refusal)

    def _timed(self, task: _Task, inputs: Mapping[str, np.ndarray], rows: int) -> Any:
        start = time.monotonic()
        outputs = task.servable.model.run_arrays(task.signature, inputs)
        seconds = time.monotonic() - start
        self._metrics.batch_run(task.servable.name, task.signature, rows=rows, seconds=seconds)
        return outputs


class _Deadlines:
    """A thread that ends requests when their time is over, whether they wait or run."""

    def __init__(self):
        self._changed = threading.Condition()
        # Weak: an answered request is not kept here by an earlier one that still runs.
        self._heap: list[tuple[float, int, weakref.ref[Future]]] = []
        self._number = itertools.count()
        self._closed = False
        self._thread = threading.Thread(target=self._watch, name="deadlines", daemon=True)
        self._thread.start()

    def add(self, deadline: float, future: Future) -> None:
        number = next(self._number)
        with self._changed:
            heapq.heappush(self._heap, (deadline, number, weakref.ref(future)))
            if self._heap[0][1] == number:
                self._changed.notify()
        future.add_done_callback(lambda _: self._forget())

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout=5)

    def _forget(self) -> None:
        """Drops answered requests from the front, so that the heap stays small."""
        with self._changed:
            while self._heap and ((first := self._heap[0][2]()) is None or first.done()):
                heapq.heappop(self._heap)

    def _watch(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                now = time.monotonic()
                due = []
                while self._heap and self._heap[0][0] <= now:
                    due.append(heapq.heappop(self._heap)[2])
                if not due:
                    self._changed.wait(self._heap[0][0] - now if self._heap else None)
            for reference in due:
                if (future := reference()) is not None:
                    late = Refused("DEADLINE_EXCEEDED", "Timed out waiting for the model")
                    _finish(future, error=late)
                del future
