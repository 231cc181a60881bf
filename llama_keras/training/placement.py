"""Where a run stands among the processes that train together."""

import contextlib
from dataclasses import dataclass
from typing import Any


def distribution_of(name: str, *, replicas: int | None = None) -> Any:
    """Gives the `tf.distribute` strategy of a name, None for `none`; see `get_distribution`."""
    if name == "none" and replicas is None:
        return None
    from llama_keras.training.strategies import get_distribution

    return get_distribution(name, replicas=replicas)


@dataclass(frozen=True)
class Placement:
    """A strategy, or none, and this process's part in it."""

    strategy: Any = None
    """A `tf.distribute.Strategy`; None is one device."""
    is_chief: bool = True
    """Whether this process writes files."""
    workers: int = 1
    """Processes that train together."""

    @classmethod
    def of(cls, strategy) -> "Placement":
        """Gives the placement of a `tf.distribute.Strategy`, or of None."""
        if strategy is None:
            return cls()
        from llama_keras.training.strategies import is_chief, worker_count

        return cls(strategy, is_chief(strategy), worker_count(strategy))

    def scope(self) -> contextlib.AbstractContextManager:
        """Gives the context in which the model is built."""
        return contextlib.nullcontext() if self.strategy is None else self.strategy.scope()

    def wait(self) -> None:
        """Waits for the other workers: one that ends while they are at work looks like a crash."""
        if self.workers > 1:
            from llama_keras.training.strategies import wait_for_workers

            wait_for_workers(self.strategy)

    def verbosity(self, *, is_terminal: bool) -> int:
        """Gives Keras's `verbose`: a bar on terminals, else lines; nothing but from the chief."""
        if not self.is_chief:
            return 0
        return 1 if is_terminal else 2
