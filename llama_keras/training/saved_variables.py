"""The variables that a training run changes, read and given back; frozen ones by fingerprint."""

import hashlib
import re
from collections.abc import Iterable, Mapping

import numpy as np

from llama_keras.errors import InputError

# Variables that do not learn and are larger than so many bytes are taken for frozen weights; what
# else a model keeps, such as the seeds of dropout, is small.
LARGE = 65536
# What Keras appends to the name of a second layer of one kind, which depends on what else the
# process has built.
_NUMBER = re.compile(r"_\d+(?=/|$)")


class SavedVariables:
    """The variables of a compiled model with a built optimizer.

    Args:
        model: a Keras model.
        frozen: of an earlier run, number of a variable (as a string) → its fingerprint; by default
            that of each large variable that does not learn.

    Attributes:
        frozen: as above.

    Raises:
        InputError: a frozen variable is not what it was.
    """

    def __init__(self, model, *, frozen: Mapping[str, str] | None = None):
        self.model = model
        self._is_checked = frozen is not None
        learning = {id(v) for v in model.trainable_variables}
        if frozen is None:
            self.frozen = {
                str(i): _fingerprint(v)
                for i, v in enumerate(model.variables)
                if id(v) not in learning and _num_bytes(v) > LARGE
            }
            return
        self.frozen = dict(frozen)
        for number, digest in self.frozen.items():
            if int(number) < len(model.variables):  # else told by `restore`
                variable = model.variables[int(number)]
                if _fingerprint(variable) != digest:
                    raise InputError(
                        f"The weights of '{variable.path}' do not learn and are not those that the "
                        "interrupted run had; build the model from the same checkpoint, or give "
                        "another folder for the checkpoints."
                    )

    def take(self, *, with_metrics: bool) -> dict[str, np.ndarray]:
        """Gives all variables that may have changed, by name.

        Args:
            with_metrics: whether those of the metrics are among them.
        """
        if not self._is_checked:
            # Once, after some steps: what changed in them is no frozen weight.
            self.frozen = {
                i: digest
                for i, digest in self.frozen.items()
                if _fingerprint(self.model.variables[int(i)]) == digest
            }
            self._is_checked = True
        groups = self._groups(with_metrics)
        return {name: _values(v) for group in groups for name, v in group.items()}

    def restore(self, arrays: Mapping[str, np.ndarray], *, with_metrics: bool = False) -> None:
        """Gives the variables back what `take` took of them; checks all before the first changes.

        Raises:
            InputError: a variable is missing, more than before, or of another shape or dtype.
        """
        pairs = []
        for group in self._groups(with_metrics):
            kind = next(iter(group)).split("/")[0] if group else "metrics"
            saved = {n: a for n, a in arrays.items() if n.split("/")[0] == kind}
            pairs += _matched(group, saved, kind=kind)
        with self.model.scope():
            for variable, array in pairs:
                variable.assign(array)

    def _groups(self, with_metrics: bool):
        model = self.model
        changing = ((i, v) for i, v in enumerate(model.variables) if str(i) not in self.frozen)
        groups = [_named("model", changing), _named("optimizer", enumerate(_optimizer(model)))]
        if with_metrics:
            groups.append(_named("metrics", enumerate(model.metrics_variables)))
        return groups

    def without_frozen(self, state: dict) -> dict:
        """Gives a callback's state with None for frozen weights among its `best_weights`."""
        return self._replaced(state, lambda array, variable: None)

    def with_frozen(self, state: dict) -> dict:
        """Gives it back as it was."""
        return self._replaced(state, lambda array, variable: _values(variable))

    def _replaced(self, state: dict, replace) -> dict:
        weights = self.model.weights
        if len(state.get("best_weights") or ()) != len(weights):
            return state
        frozen = {id(self.model.variables[int(i)]) for i in self.frozen}
        pairs = zip(state["best_weights"], weights, strict=True)
        best = [replace(a, v) if id(v) in frozen else a for a, v in pairs]
        return {**state, "best_weights": best}


def _optimizer(model) -> list:
    return model.optimizer.variables


def _named(kind: str, numbered: Iterable) -> dict:
    return {f"{kind}/{i}/{v.path}": v for i, v in numbered}


def _matched(group, saved, *, kind: str) -> list:
    """Gives pairs of a variable and its array."""
    if len(group) != len(saved):
        raise InputError(
            f"The checkpoint is of another {kind}: it has {len(saved)} variables, this one has "
            f"{len(group)}. Build and compile the model as it was, or give another folder for the "
            "checkpoints."
        )
    pairs = []
    for (name, variable), (old, array) in zip(group.items(), saved.items(), strict=True):
        here = (_NUMBER.sub("", name.split("/", 2)[2]), tuple(variable.shape), _dtype(variable))
        there = (_NUMBER.sub("", old.split("/", 2)[2]), array.shape, array.dtype.name)
        if name.split("/")[1] != old.split("/")[1] or here != there:
            raise InputError(
                f"The checkpoint is of another {kind}: where it has '{old}' {array.shape} "
                f"{array.dtype.name}, this one has '{name}' {here[1]} {here[2]}. Build and compile "
                "the model as it was, or give another folder for the checkpoints."
            )
        pairs.append((variable, array))
    return pairs


def _values(variable) -> np.ndarray:
    return np.asarray(variable.numpy())


def _dtype(variable) -> str:
    return str(variable.dtype)


def _num_bytes(variable) -> int:
    return int(np.prod(variable.shape)) * (2 if "16" in _dtype(variable) else 4)


def _fingerprint(variable) -> str:
    values = np.ascontiguousarray(_values(variable)).reshape(-1)
    return hashlib.sha256(values.view(np.uint8).data).hexdigest()
