"""What a server answers with now: models by name, their versions, and a way to run them.

served = ServedModels([find_source("models/sentiment")])
with served, served.use("sentiment") as servable:
    answer = served.submit(servable, "serving_default", {"text": texts}).result()
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..errors import InputError
from .batching import Batcher, Batching
from .local import SavedModel
from .metrics import Metrics
from .model_versions import ModelVersions, Servable, VersionState
from .refused import Refused
from .versions import ModelSource

__all__ = ["Refused", "Servable", "ServedModels", "VersionState"]


class ServedModels:
    """Several models, each in one or more versions that come and go while requests run.

    Args:
        sources: where the versions of each model are found, see `versions.find_source`.
        batching: how requests are put together.
        poll_seconds: how often the folders are looked through for versions, TF Serving's
            `file_system_poll_wait_seconds`; 0 looks once.
        max_rows: requests with more rows are refused; None has no limit.
        timeout: seconds in which a request is answered where `submit` says nothing else.
        metrics: where counts go.
        load: makes the model of a version's folder.

    Raises:
        InputError: a name twice, a model of which no version loads, or a label of a version that
            is not there.
    """

    def __init__(
        self,
        sources: Sequence[ModelSource],
        *,
        batching: Batching | None = None,
        poll_seconds: float = 1.0,
        max_rows: int | None = None,
        timeout: float | None = None,
        metrics: Metrics | None = None,
        load: Callable[[Path], SavedModel] = SavedModel,
    ):
        twice = [name for name, n in Counter(source.name for source in sources).items() if n > 1]
        if twice:
            raise InputError(
                f"Two models have the name {twice[0]!r}; serve one of them from a folder of "
                "another name, or name both with --models-config."
            )
        if not sources:
            raise InputError("There is no model to serve; give at least one folder.")
        self.metrics = metrics or Metrics()
        self._idle = threading.Condition()
        self._users: Counter[Servable] = Counter()
        self._draining = False
        self._closing = threading.Event()
        self._poll_seconds, self._max_rows, self._timeout = poll_seconds, max_rows, timeout
        self._batcher = Batcher(batching or Batching(), metrics=self.metrics)
        self._models = {
            source.name: ModelVersions(source, load=load, lock=self._idle, used=self._is_used)
            for source in sources
        }
        self._poller: threading.Thread | None = None
        try:
            for model in self._models.values():
                model.poll()
                model.check_started()
        except BaseException:
            self._batcher.close()
            raise
        self._count_versions()

    def names(self) -> list[str]:
        """Gives the models' names, sorted."""
        return sorted(self._models)

    def states(self, name: str) -> list[VersionState]:
        """Gives the state of each version of a model that was ever seen, newest first.

        Raises:
            Refused: NOT_FOUND, there is no such model.
        """
        if name not in self._models:
            raise Refused("NOT_FOUND", f"Could not find any versions of model {name}")
        return self._models[name].states()

    @contextmanager
    def use(
        self, name: str, *, version: int | None = None, label: str | None = None
    ) -> Iterator[Servable]:
        """Holds a version in memory while the block runs.

        Args:
            name: of the model.
            version: its number; by default the newest that is available.
            label: its label instead.

        Raises:
            Refused: NOT_FOUND, INVALID_ARGUMENT (unknown label), UNAVAILABLE (shutting down).
        """
        servable = self._take(name, version, label)
        try:
            yield servable
        finally:
            self._give_back(servable)

    def submit(
        self,
        servable: Servable,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        *,
        timeout: float | None = None,
    ) -> Future:
        """Runs a signature, perhaps together with other requests.

        Args:
            servable: from `use`.
            signature: its name.
            inputs: arrays of the signature's types and shapes by name, strings as `bytes`
                (dtype object).
            timeout: seconds after which nobody waits any more: the future is refused with
                DEADLINE_EXCEEDED, and what has not begun by then is dropped.

        Returns:
            A future of the outputs by name; it raises `Refused`. Cancelling it drops the request
            if it has not begun.

        Raises:
            Refused: RESOURCE_EXHAUSTED, the queue is full; INVALID_ARGUMENT, too many rows;
                UNAVAILABLE, the server is closed.
        """
        rows = max((len(array) for array in inputs.values() if array.ndim), default=1)
        if self._max_rows is not None and rows > self._max_rows:
            raise Refused(
                "INVALID_ARGUMENT",
                f"The request has {rows} rows; at most {self._max_rows} are taken at once",
            )
        with self._idle:
            self._users[servable] += 1
        timeout = self._timeout if timeout is None else timeout
        try:
            future = self._batcher.submit(servable, signature, inputs, rows=rows, timeout=timeout)
        except BaseException:
            self._give_back(servable)
            raise
        future.add_done_callback(lambda _: self._give_back(servable))
        return future

    @property
    def ready(self) -> bool:
        """Whether each model has a version that answers, and requests are taken."""
        return not self._draining and all(model.newest() for model in self._models.values())

    @property
    def draining(self) -> bool:
        """Whether new requests are refused because the server stops."""
        return self._draining

    def start(self) -> None:
        """Begins to look for new versions, in a thread of its own."""
        if self._poll_seconds > 0 and self._poller is None:
            self._poller = threading.Thread(target=self._poll, name="versions", daemon=True)
            self._poller.start()

    def poll(self) -> None:
        """Looks for new versions now: loads them, then unloads what they replace."""
        for model in self._models.values():
            model.poll()
        self._count_versions()

    def drain(self, timeout: float) -> bool:
        """Refuses new requests and waits for those that were taken; says whether all are done."""
        end = time.monotonic() + timeout
        with self._idle:
            self._draining = True
            return self._idle.wait_for(
                lambda: not self._users, timeout=max(0.0, end - time.monotonic())
            )

    def abandon(self) -> None:
        """Refuses what is not answered yet; for the end of a drain that took too long."""
        self._batcher.abandon()

    def close(self) -> None:
        """Stops the threads; what is still in the queue is refused."""
        self._closing.set()
        self._draining = True
        self._batcher.close()
        if self._poller is not None:
            self._poller.join(timeout=5)  # it may be loading a large version

    def __enter__(self) -> "ServedModels":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, name: str, version: int | None, label: str | None) -> Servable:
        with self._idle:
            if self._draining:
                raise Refused("UNAVAILABLE", "The server is shutting down; ask another one")
            if name not in self._models:
                raise Refused("NOT_FOUND", _not_found(name, version))
            servable = self._models[name].find(version=version, label=label)
            if servable is None:
                raise Refused("NOT_FOUND", _not_found(name, version))
            self._users[servable] += 1
            return servable

    def _give_back(self, servable: Servable) -> None:
        with self._idle:
            self._users[servable] -= 1
            if self._users[servable]:
                return
            del self._users[servable]
            self._models[servable.name].unused(servable)
            if not self._users:
                self._idle.notify_all()

    def _is_used(self, servable: Servable) -> bool:
        return servable in self._users

    def _poll(self) -> None:
        while not self._closing.wait(self._poll_seconds):
            self.poll()

    def _count_versions(self) -> None:
        for name, model in self._models.items():
            self.metrics.set_versions(
                name, {state.version: state.state for state in model.states()}
            )


def _not_found(name: str, version: int | None) -> str:
    wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return f"Servable not found for request: {wanted}"
