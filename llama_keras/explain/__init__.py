"""One sentence through every stage of the pipeline, with the values in between."""

from typing import TYPE_CHECKING

from llama_keras.lazy import lazy_names

if TYPE_CHECKING:
    from llama_keras.explain.page import draw_page, write_page
    from llama_keras.explain.records import Explanation
    from llama_keras.explain.stages import Settings, default_preset, explain, explain_preset
    from llama_keras.explain.terminal import print_explanation

__all__ = [
    "Explanation",
    "Settings",
    "default_preset",
    "draw_page",
    "explain",
    "explain_preset",
    "print_explanation",
    "write_page",
]

_HOMES = {
    "Explanation": "records",
    "Settings": "stages",
    "default_preset": "stages",
    "draw_page": "page",
    "explain": "stages",
    "explain_preset": "stages",
    "print_explanation": "terminal",
    "write_page": "page",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
