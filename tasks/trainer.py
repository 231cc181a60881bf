"""The Keras model that tasks are, backend by backend."""

import contextlib
from typing import TYPE_CHECKING

import keras

from llama_keras.errors import InputError


class PlainTrainer(keras.Model):
    """Keras's own steps, which are exact on JAX: there a batch is one array, however it lies."""

    num_replicas = 1
    loss_is_scaled = False
    loss_couples_rows = False

    def compile(self, *args, gradient_accumulation_steps: int = 1, **kwargs):
        """Prepares training; see `keras.Model.compile`."""
        if gradient_accumulation_steps != 1:
            raise InputError(
                "gradient_accumulation_steps of compile is for the TensorFlow backend; here give "
                f"it to the optimizer; received {gradient_accumulation_steps!r}."
            )
        super().compile(*args, **kwargs)

    def writes_files(self) -> bool:
        """Says that this process writes files."""
        return True

    def scope(self) -> contextlib.AbstractContextManager:
        """Gives a context that does nothing."""
        return contextlib.nullcontext()

    def distributed(self, make):
        """Gives the data set of `make` (a function of `data.shares.Share`)."""
        from llama_keras.data.shares import WHOLE

        return make(WHOLE)

    def once(self, make, *, steps: int):
        """Gives the data set of `make`, for one pass, and no number of steps."""
        return self.distributed(make), None


if TYPE_CHECKING or keras.backend.backend() == "tensorflow":
    from llama_keras.training.exact_trainer import ExactTrainer

    class Trainer(ExactTrainer, keras.Model):
        """Steps that are exact on any number of replicas."""
else:
    Trainer = PlainTrainer

__all__ = ["Trainer"]
