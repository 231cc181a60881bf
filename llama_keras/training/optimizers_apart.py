"""Keras optimizers for gradients that were summed over the replicas already."""

from typing import Any

from llama_keras.errors import InputError

# Settings that Keras carries out by a condition round an update, which no strategy with a merge
# call takes, and what to do instead.
_CONDITIONAL = {
    "gradient_accumulation_steps": (
        "give gradient_accumulation_steps to model.compile(…) instead, which takes each batch in "
        "so many parts"
    ),
    "ema_overwrite_frequency": "leave it out: the average is written at the end of fit",
}


def check_optimizer(optimizer, *, strategy) -> None:
    """Raises `InputError` where a setting of a Keras optimizer fails under a strategy."""
    for part in _parts(optimizer):
        for setting, remedy in _CONDITIONAL.items():
            if value := getattr(part, setting, None):
                raise InputError(
                    f"{type(part).__name__}({setting}={value}) does not work in Keras under "
                    f"{type(strategy).__name__}; {remedy}."
                )


def expect_summed_gradients(optimizer) -> None:
    """Makes an optimizer take gradients as they are, not sum them over the replicas.

    Keras clips first and sums then, which is no clipping of the sum. The hook is private, for there
    is no public one; a test compares weights, so it fails when Keras changes.
    """
    for part in _parts(optimizer):
        part._all_reduce_sum_gradients = list


def _parts(optimizer) -> list[Any]:
    inner = getattr(optimizer, "inner_optimizer", None)
    return [optimizer] if inner is None else [optimizer, inner]
