"""Training objectives in `keras.ops` alone, so that they run on every backend."""

from typing import TYPE_CHECKING

from llama_keras.lazy import lazy_names

if TYPE_CHECKING:
    from llama_keras.objectives.contrastive import Contrastive, info_nce
    from llama_keras.objectives.cross_entropy import (
        chunked_cross_entropy,
        head_kernel,
        token_losses,
    )
    from llama_keras.objectives.table import OBJECTIVES, get_objective, objective_config
    from llama_keras.objectives.tokens import Scores, TokenObjective

__all__ = [
    "OBJECTIVES",
    "Contrastive",
    "Scores",
    "TokenObjective",
    "chunked_cross_entropy",
    "get_objective",
    "head_kernel",
    "info_nce",
    "objective_config",
    "token_losses",
]

# Name -> file; a file loads when the name is first asked for.
_FILES = {
    "OBJECTIVES": "table",
    "get_objective": "table",
    "objective_config": "table",
    "Contrastive": "contrastive",
    "info_nce": "contrastive",
    "Scores": "tokens",
    "TokenObjective": "tokens",
    "chunked_cross_entropy": "cross_entropy",
    "head_kernel": "cross_entropy",
    "token_losses": "cross_entropy",
}

__getattr__, __dir__ = lazy_names(__name__, _FILES)
