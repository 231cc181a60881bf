"""`fit` that goes on after a kill as if nothing had been: the same weights, bit for bit.

A checkpoint holds all that the next step depends on: the variables of the model (seeds of dropout
among them), the optimizer and, within an epoch, the metrics; the states of callbacks; and the
number of the batch, of which the data are a pure function.
"""

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any

import keras

from llama_keras.errors import InputError
from llama_keras.training.callback_states import (
    callback_states,
    check_callbacks,
    pack,
    paired,
    prepare_callbacks,
    restore_callbacks,
    unpack,
)
from llama_keras.training.checkpoints import Checkpoint, Checkpoints
from llama_keras.training.run_identity import check_plan, plan_of
from llama_keras.training.saved_variables import SavedVariables


def resumable_fit(
    fit: Callable,
    *,
    model,
    batches: Callable,
    checkpoints: Checkpoints | None,
    steps: int,
    epochs: int,
    initial_epoch: int = 0,
    plan: dict[str, Any] | None = None,
    **arguments,
):
    """Trains a compiled model from the first batch, or from the last checkpoint.

    Args:
        fit: Keras's `fit` of the model.
        model: a `tasks.trainer.Trainer`.
        batches: from a `data.shares.Share` and the number of a batch, counted over all epochs,
            gives the endless data set that begins there.
        checkpoints: where to resume from and to save to; None does neither.
        steps: batches in an epoch.
        epochs: passes over the data.
        initial_epoch: the epoch to begin with where there is no checkpoint.
        plan: what has to be the same in a resumed run, as plain values and arrays.
        **arguments: further ones of `keras.Model.fit`.

    Returns:
        A Keras `History` of the whole run.

    Raises:
        InputError: the checkpoints are of another run, or a setting does not go with them.
    """
    together = getattr(model, "steps_per_execution", 1)
    if together > 1 and (checkpoints is not None or steps % together):
        raise InputError(
            f"steps_per_execution={together} must divide the {steps} batches of an epoch, and does "
            "not go with checkpoints; compile without it."
        )
    if checkpoints is None:
        return fit(
            model.distributed(lambda share: batches(share, initial_epoch * steps)),
            steps_per_epoch=steps,
            epochs=epochs,
            initial_epoch=initial_epoch,
            **arguments,
        )
    run = _Run(
        model,
        checkpoints,
        steps=steps,
        epochs=epochs,
        plan=plan_of({**(plan or {}), "epochs": epochs, "steps in an epoch": steps}, model),
    )
    return run.fit(fit, batches, first=initial_epoch * steps, **arguments)


class _Run:
    """One call of `fit` with checkpoints."""

    def __init__(self, model, checkpoints: Checkpoints, *, steps: int, epochs: int, plan):
        self.model, self.checkpoints, self.plan = model, checkpoints, plan
        self.steps, self.epochs = steps, epochs
        self.is_chief, self.has_peers = _place(model)
        if self.has_peers and checkpoints.every is None:
            raise InputError(
                "Several workers save together, by the number of steps: give Checkpoints(every=…)."
            )

    def fit(self, fit, batches, *, first: int, callbacks=None, verbose: Any = "auto", **arguments):
        found = self.checkpoints.latest()
        if self.has_peers:
            # A folder on a network may look older to one of them.
            check_same_checkpoint(self.model.distribute_strategy, found)
        with self.model.scope():
            if not self.model.optimizer.built:
                self.model.optimizer.build(self.model.trainable_variables)
        if found is not None:
            check_plan(found.notes["plan"], self.plan, folder=self.checkpoints.folder)
        self.saved = SavedVariables(self.model, frozen=found and found.notes["frozen"])
        if found is not None:
            self.saved.restore(found.arrays)
        given = _as_list(callbacks)
        check_callbacks(given)
        history = next((c for c in given if isinstance(c, keras.callbacks.History)), None)
        self.callbacks = given if history else [*given, history := keras.callbacks.History()]
        if found is not None and found.finished:
            return self._take_over(history, found)
        keeper = _Keeper(self, found, first=first)
        listed = _CallbackList(
            [*self.callbacks, keeper],
            add_progbar=verbose != 0,
            verbose=verbose,
            epochs=self.epochs,
            steps=self.steps,
            model=self.model,
        )
        self.model.history = history

        def data_from(step):
            return self.model.distributed(lambda share: batches(share, step))

        position = found.step if found else first
        arguments |= {"callbacks": listed, "verbose": verbose, "epochs": self.epochs}
        epoch, done = divmod(position, self.steps)
        stopped = bool(found and found.notes["stopped"])
        if done and not stopped:
            data = data_from(position)
            _make_metrics(self.model, data)
            listed.first_batch = done
            with _without_last_values(self.model.optimizer):
                short = {"initial_epoch": epoch, "epochs": epoch + 1}
                fit(data, steps_per_epoch=self.steps - done, **{**arguments, **short})
            listed.first_batch = 0
            stopped, epoch = self.model.stop_training, epoch + 1
        listed.may_end = True
        # Without an epoch left this finishes what was trained: averages, the best weights.
        epoch = self.epochs if stopped else epoch
        data = data_from(min(epoch, self.epochs - 1) * self.steps)
        fit(data, steps_per_epoch=self.steps, initial_epoch=epoch, **arguments)
        self.model.stop_training |= stopped
        self.save(keeper.position, is_finished=True)
        return history

    def _take_over(self, history, found: Checkpoint):
        history.set_model(self.model)
        restore_callbacks(paired([history], self.states_of(found)))
        self.model.history, self.model.stop_training = history, found.notes["stopped"]
        return history

    def save(self, step: int, *, is_finished: bool = False, score=None, best=None) -> None:
        """Writes a checkpoint. All workers call it, for some variables are read together."""
        within = bool(step % self.steps) and not self.model.stop_training
        arrays = self.saved.take(with_metrics=within)
        kept = self.callbacks
        if is_finished:  # nobody else has anything left to do
            kept = [c for c in kept if isinstance(c, keras.callbacks.History)]
        states = [
            (name, pack(self.saved.without_frozen(state), arrays, f"callbacks/{number}/{name}"))
            for number, (name, state) in enumerate(callback_states(kept))
        ]
        notes = {
            "plan": self.plan,
            "frozen": self.saved.frozen,
            "stopped": bool(self.model.stop_training),
            "best": best,
            "callbacks": states,
        }
        if self.is_chief:
            self.checkpoints.save(Checkpoint(step, arrays, notes, is_finished, score))

    def states_of(self, found: Checkpoint) -> list[tuple[str, dict[str, Any]]]:
        return [
            (name, self.saved.with_frozen(unpack(state, found.arrays)))
            for name, state in found.notes["callbacks"]
        ]


class _Keeper(keras.callbacks.Callback):
    """Saves when it is time, and gives back what was saved. The last of all callbacks."""

    def __init__(self, run: _Run, found: Checkpoint | None, *, first: int):
        super().__init__()
        self.run, self._found = run, found
        self.position = self._saved_at = found.step if found else first
        self._best = found.notes["best"] if found else None
        self._pairs = paired(run.callbacks, run.states_of(found)) if found else []
        self._clock = time.monotonic()
        prepare_callbacks(self._pairs)

    def on_train_begin(self, logs=None):
        restore_callbacks(self._pairs)
        if self._found is not None and not self._is_within_epoch():
            self._found = None

    def _is_within_epoch(self) -> bool:
        found = self._found
        return bool(found and found.step % self.run.steps and not found.notes["stopped"])

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        if self._found is not None:
            # This epoch began before: what callbacks now did at its beginning is undone, and so is
            # Keras's reset of the metrics.
            self.run.saved.restore(self._found.arrays, with_metrics=True)
            restore_callbacks(self._pairs)
            self._found = None

    def on_train_batch_end(self, batch, logs=None):
        self.position = self._epoch * self.run.steps + batch + 1
        # The last batch of an epoch waits for the epoch's end.
        if self.position % self.run.steps and not self.model.stop_training and self._is_due():
            self._save()

    def on_epoch_end(self, epoch, logs=None):
        is_last = epoch + 1 == self.run.epochs or self.model.stop_training
        score = self._score(logs or {})
        if is_last or score is not None or self._is_due():
            self._save(score)

    def _score(self, logs) -> float | None:
        """Gives the epoch's score where it is the best so far."""
        name = self.run.checkpoints.best
        if name is None:
            return None
        if name not in logs:
            if name.startswith("val_") and not any(key.startswith("val_") for key in logs):
                return None  # by `validation_freq` not measured in this epoch
            raise InputError(f"best={name!r} of the checkpoints is none of {sorted(logs)}.")
        score = float(logs[name])
        if not math.isfinite(score):
            return None  # nothing would ever be better
        lower = self.run.checkpoints.best_mode == "min"
        if self._best is None or (score < self._best if lower else score > self._best):
            self._best = score
            return score
        return None

    def _is_due(self) -> bool:
        settings = self.run.checkpoints
        every, minutes = settings.every, settings.minutes
        if every is not None and self.position // every > self._saved_at // every:
            return True
        passed = time.monotonic() - self._clock
        return minutes is not None and not self.run.has_peers and passed >= 60 * minutes

    def _save(self, score=None) -> None:
        self.run.save(self.position, score=score, best=self._best)
        self._saved_at, self._clock = self.position, time.monotonic()


class _CallbackList(keras.callbacks.CallbackList):
    """Callbacks that see one fit where Keras carries out two."""

    first_batch = 0
    may_end = False
    _is_begun = False
    _epoch_logs = None

    def on_train_begin(self, logs=None):
        if not self._is_begun:
            super().on_train_begin(logs)
        self._is_begun = True

    def on_train_batch_begin(self, batch, logs=None):
        super().on_train_batch_begin(batch + self.first_batch, logs)

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch + self.first_batch, logs)

    def on_epoch_end(self, epoch, logs=None):
        self._epoch_logs = logs
        super().on_epoch_end(epoch, logs)

    def on_train_end(self, logs=None):
        if self.may_end:
            super().on_train_end(self._epoch_logs if logs is None else logs)


@contextlib.contextmanager
def _without_last_values(optimizer):
    """A block in which Keras does not end a fit by writing averages over the weights."""
    optimizer.finalize_variable_values = lambda variables: None
    try:
        yield
    finally:
        del optimizer.finalize_variable_values


def _make_metrics(model, dataset) -> None:
    """Makes the metrics' variables, which Keras with one replica makes at the first batch only."""
    if model.num_replicas == 1 and keras.backend.backend() == "tensorflow":
        model._maybe_symbolic_build(data_batch=next(iter(dataset)))


def _place(model) -> tuple[bool, bool]:
    """Says whether this process writes files, and whether there are others."""
    if keras.backend.backend() != "tensorflow":
        return True, False
    from llama_keras.training.strategies import is_chief, worker_count

    strategy = model.distribute_strategy
    return is_chief(strategy), worker_count(strategy) > 1


def check_same_checkpoint(strategy, found: Checkpoint | None) -> None:
    """Raises `InputError` on every worker unless all of them go on from the same step."""
    from llama_keras.training.strategies import check_agreement

    step = 0 if found is None else found.step + 1
    check_agreement(strategy, step, what="the checkpoint to go on from (its step + 1, or 0)")


def _as_list(callbacks) -> list:
    if callbacks is None:
        return []
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return list(callbacks.callbacks)
    return list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]
