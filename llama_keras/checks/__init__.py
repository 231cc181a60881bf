"""What is wrong with the data that a recipe names, before anybody trains on them."""

from typing import TYPE_CHECKING

from llama_keras.lazy import lazy_names

if TYPE_CHECKING:
    from llama_keras.checks.records import Finding
    from llama_keras.checks.report import Report, check_recipe, print_report

__all__ = ["Finding", "Report", "check_recipe", "print_report"]

_HOMES = {
    "Finding": "records",
    "Report": "report",
    "check_recipe": "report",
    "print_report": "report",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
