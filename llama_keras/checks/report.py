"""Puts all questions of a task to the data of a recipe, and prints the answers."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from llama_keras.checks.documents import read_documents
from llama_keras.checks.reading import read_data
from llama_keras.checks.records import LEVELS, Finding, Level, worst
from llama_keras.checks.table import CHECKS, FIRST, PRETRAINING
from llama_keras.errors import InputError
from llama_keras.tasks.pretraining_recipe import PretrainingRecipe
from llama_keras.tasks.recipe import Recipe

_COLOURS = {"good": "green", "warn": "yellow", "fail": "bold red"}


@dataclass(frozen=True)
class Report:
    """What was found in the data of a recipe.

    Attributes:
        recipe: its name.
        task: its task, or "pretraining".
        findings: check -> what it found, in the order in which they were asked.
    """

    recipe: str
    task: str
    findings: dict[str, Finding]

    @property
    def level(self) -> Level:
        """The worst level."""
        return worst(finding.level for finding in self.findings.values())

    @property
    def counts(self) -> dict[str, int]:
        """How many checks gave each level."""
        found = Counter(finding.level for finding in self.findings.values())
        return {level: found[level] for level in LEVELS}

    def to_dict(self) -> dict[str, Any]:
        """Gives the report as plain values for JSON."""
        checks = [
            {
                "check": name,
                **asdict(finding),
                "examples": [{"place": place, "text": text} for place, text in finding.examples],
            }
            for name, finding in self.findings.items()
        ]
        return {"recipe": self.recipe, "task": self.task, "level": self.level, "checks": checks}


def check_recipe(recipe: Recipe | PretrainingRecipe) -> Report:
    """Checks the data that a recipe names.

    Args:
        recipe: from `tasks.recipe.load_recipe` or `load_pretraining_recipe`.

    Raises:
        InputError: it names no training data, or there are no checks for its task.

    Example:
    ```python
    from llama_keras.tasks.recipe import load_recipe

    report = check_recipe(load_recipe("demo_sentiment", overrides=["preset=llama-tiny"]))
    assert report.findings["overlap"].level == "good"
    ```
    """
    if isinstance(recipe, PretrainingRecipe):
        task, data = "pretraining", read_documents(recipe)
        checks = PRETRAINING if data.examples else PRETRAINING[:2]
    elif recipe.task in CHECKS:
        task, data = recipe.task, read_data(recipe)
        checks = CHECKS[task] if data.examples else FIRST
    else:
        raise InputError(f"There are no checks for task={recipe.task!r}; those of {list(CHECKS)}.")
    found = {check.name: check.run(data) for check in checks}
    findings = {name: finding for name, finding in found.items() if finding is not None}
    return Report(recipe.name, task, findings)


def print_report(report: Report, *, console: Console | None = None) -> None:
    """Prints one line a check, and the examples under it.

    Args:
        report: from `check_recipe`.
        console: where to; by default standard output, in colour on a terminal.
    """
    console = console or Console(highlight=False, soft_wrap=True)
    width = max(map(len, report.findings))
    for name, finding in report.findings.items():
        line = Text().append(finding.level, style=_COLOURS[finding.level])
        line.append(f"  {name:<{width}}  ", style="bold").append(finding.message)
        console.print(line)
        # Good lines may count a few faults too; those that matter are shown.
        for place, text in finding.examples if finding.level != "good" else ():
            console.print(Text(f"{'':{width + 8}}{place}: {text}", style="dim"))
    counts = ", ".join(f"{count} {level}" for level, count in report.counts.items())
    console.print(Text(f"{report.recipe}: {counts}", style=_COLOURS[report.level]))
