"""The objectives by name."""

import dataclasses
from typing import Any

from llama_keras.errors import InputError
from llama_keras.objectives.contrastive import Contrastive
from llama_keras.objectives.tokens import (
    CAUSAL,
    DENOISING,
    MASKED,
    MASKED_NEXT_TOKEN,
    TokenObjective,
)

Objective = TokenObjective | Contrastive

OBJECTIVES: dict[str, Objective] = {
    objective.name: objective
    for objective in (CAUSAL, MASKED, MASKED_NEXT_TOKEN, DENOISING, Contrastive())
}
# What may be set; the rest makes an objective what it is.
_SETTINGS = {TokenObjective: ("chunk",), Contrastive: ("temperature", "pooling", "views")}


def get_objective(objective: Any) -> Objective:
    """Gives the objective of a name or of `objective_config`, or the given one.

    Args:
        objective: a name of `OBJECTIVES`, `{"name": NAME, SETTING: VALUE}`, or an objective.

    Raises:
        InputError: there is no such objective or setting.
    """
    if isinstance(objective, Objective):
        return objective
    settings = {"name": objective} if isinstance(objective, str) else dict(objective)
    name = settings.pop("name", None)
    if name not in OBJECTIVES:
        raise InputError(f"There is no objective {name!r}; expected one of {list(OBJECTIVES)}.")
    known = _SETTINGS[type(OBJECTIVES[name])]
    if unknown := sorted(settings.keys() - set(known)):
        raise InputError(f"The objective {name!r} has no {unknown[0]!r}; it has {list(known)}.")
    return dataclasses.replace(OBJECTIVES[name], **settings)


def objective_config(objective: Objective) -> dict[str, Any]:
    """Gives an objective's name and settings as values that JSON and YAML hold."""
    settings = {key: getattr(objective, key) for key in _SETTINGS[type(objective)]}
    return {"name": objective.name, **settings}
