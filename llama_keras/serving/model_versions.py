"""The versions of one model: which are loaded, in what state the others are, and why."""

import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Condition

from ..errors import InputError
from .local import SavedModel
from .manifest import Manifest, read_manifest
from .refused import Refused
from .versions import ModelSource
from .warmup_replay import replay_warmup

# Ended versions that the status still tells of.
_REMEMBERED = 50
# state -> its number in tensorflow_serving/apis/get_model_status.proto
STATES = {"START": 10, "LOADING": 20, "AVAILABLE": 30, "UNLOADING": 40, "END": 50}


@dataclass(frozen=True)
class VersionState:
    """What the status says of one version.

    Attributes:
        version: its number.
        state: a name in `STATES`.
        error_code: why it ended, a name in `refused.CODES`.
        error_message: the reason in words.
    """

    version: int
    state: str
    error_code: str = "OK"
    error_message: str = ""


@dataclass(frozen=True, eq=False)
class Servable:
    """One loaded version of a model.

    Attributes:
        name: the model's name.
        version: its number.
        model: what runs it.
        manifest: what the export says about itself; class names are `manifest.labels`.
        labels: the version's labels in URLs, such as `"stable"`.
    """

    name: str
    version: int
    model: SavedModel
    manifest: Manifest
    labels: tuple[str, ...]


class ModelVersions:
    """Keeps the versions loaded that the source's policy asks for.

    A newer version is loaded, and its warm-up records are replayed, before the one that it
    replaces goes. One that does not load is told in its state, and left out until its folder
    changes.

    Args:
        source: where the versions are.
        load: makes the model of a version's folder.
        lock: guards who uses what.
        used: says whether a request still runs in a version; called with the lock held.
    """

    def __init__(
        self,
        source: ModelSource,
        *,
        load: Callable[[Path], SavedModel],
        lock: Condition,
        used: Callable[[Servable], bool],
    ):
        self.source = source
        self._load_model, self._lock, self._used = load, lock, used
        self._available: dict[int, Servable] = {}
        self._retiring: set[Servable] = set()
        self._states: dict[int, VersionState] = {}
        self._failed: dict[int, object] = {}  # version -> what its folder held then
        self._garbage = False

    def find(self, *, version: int | None = None, label: str | None = None) -> Servable | None:
        """Gives a version that answers; the newest where neither number nor label is given.

        Raises:
            Refused: INVALID_ARGUMENT, no version that answers has the label.
        """
        if label:
            version = self.source.labels.get(label)
            if version not in self._available:
                raise Refused("INVALID_ARGUMENT", f"Unrecognized servable version label: {label}")
        return self.newest() if version is None else self._available.get(version)

    def newest(self) -> Servable | None:
        """Gives the newest version that answers."""
        with self._lock:
            return self._available[max(self._available)] if self._available else None

    def states(self) -> list[VersionState]:
        """Gives all that is known, newest first."""
        with self._lock:
            return [self._states[version] for version in sorted(self._states, reverse=True)]

    def check_started(self) -> None:
        """Checks what must hold when a server starts.

        Raises:
            InputError: no version loaded, or a label names one that is not there.
        """
        if not self._available:
            reasons = [state.error_message for state in self.states() if state.error_message]
            raise InputError(reasons[0] if reasons else self.source.nothing_found())
        for label, version in self.source.labels.items():
            if version not in self._available:
                there = ", ".join(map(str, sorted(self._available)))
                raise InputError(
                    f"The label {label!r} names version {version} of {self.source.name}, which is "
                    f"not loaded; loaded: {there}. Load more with --version-policy."
                )

    def poll(self) -> None:
        """Looks through the folder once; loads and unloads. One thread at a time calls it."""
        if self._garbage:
            self._garbage = False
            gc.collect()  # a graph holds itself: only the collector frees its variables
        try:
            found = self.source.found()
        except OSError as error:  # a disk that is away for a moment takes nothing out of service
            print(f"Cannot look for versions of {self.source.name}: {error}", file=sys.stderr)
            return
        kept: set[int] = set()
        for version in self.source.policy.order(found):
            if len(kept) == self.source.policy.limit:
                break
            if version in self._available or self._load(version, found[version]):
                kept.add(version)
        for version in sorted(set(self._available) - kept):
            self._unload(version)
        self._failed = {v: seen for v, seen in self._failed.items() if v in found}

    def unused(self, servable: Servable) -> None:
        """Lets go of a version that is to be unloaded; called with the lock held."""
        if servable in self._retiring:
            self._retiring.discard(servable)
            self._set(servable.version, "END")
            self._garbage = True

    def _load(self, version: int, path: Path) -> bool:
        seen = _fingerprint(path)
        if self._failed.get(version) == seen:
            return False
        self._set(version, "LOADING")
        try:
            model = self._load_model(path)
            manifest = read_manifest(path)
            replay_warmup(model, path)
        except Exception as error:  # whatever is wrong with it, the others go on
            code = "INVALID_ARGUMENT" if isinstance(error, InputError) else "INTERNAL"
            reason = str(error) or type(error).__name__
            self._failed[version] = seen
            self._set(version, "END", code, reason)
            print(f"{self.source.name} version {version} is not served: {reason}", file=sys.stderr)
            return False
        labels = tuple(label for label, v in self.source.labels.items() if v == version)
        servable = Servable(self.source.name, version, model, manifest, labels)
        with self._lock:
            self._failed.pop(version, None)
            self._available[version] = servable
            self._set(version, "AVAILABLE")
        return True

    def _unload(self, version: int) -> None:
        with self._lock:
            servable = self._available.pop(version)
            self._set(version, "UNLOADING")
            self._retiring.add(servable)
            if not self._used(servable):
                self.unused(servable)

    def _set(self, version: int, state: str, code: str = "OK", message: str = "") -> None:
        with self._lock:
            self._states[version] = VersionState(version, state, code, message)
            ended = sorted(v for v, known in self._states.items() if known.state == "END")
            for old in ended[:-_REMEMBERED]:
                del self._states[old]


def _fingerprint(path: Path) -> object:
    """Gives what tells whether anything in a folder has changed."""
    try:
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return tuple((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files)
    except OSError:
        return None
