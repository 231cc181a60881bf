"""Suites: YAML files that name the data, the labels and the metrics of an evaluation."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from llama_keras.records import Record, load_record, shipped_names

SUITES = Path(__file__).parent / "suites"
# The keys of metrics.METRICS, repeated so that reading a suite does not load scikit-learn.
MetricName = Literal["accuracy", "f1", "micro_f1", "mcc"]


def _no_repeats(names: list) -> list:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ValueError(f"repeated: {repeated}")
    return names


class SuiteData(Record):
    """Where a suite's examples are; the fields are arguments of `data.load_classification`."""

    source: str
    """A file, folder, `tfds:`, `package:` or `shared:` name."""
    split: str | None = None
    """The split of a folder or tfds set."""
    text_column: str = "text"
    """The column of the texts."""
    label_column: str = "label"
    """The column of the labels."""
    data_dir: str | None = None
    """Where tfds sets are prepared."""


class Suite(Record):
    """What is measured and on what."""

    name: str
    """Its name in results."""
    description: str = ""
    """One line for people."""
    task: Literal["text_classification"] = "text_classification"
    """The kind of answers."""
    data: SuiteData
    """The examples."""
    labels: Annotated[list[str], AfterValidator(_no_repeats)] | None = None
    """All labels that there are; left out, those of the data."""
    metrics: Annotated[list[MetricName], Field(min_length=1), AfterValidator(_no_repeats)] = [
        "accuracy",
        "f1",
    ]
    """What to compute."""


def suite_names() -> list[str]:
    """Returns the names of the suites that come with the package."""
    return shipped_names(SUITES)


def load_suite(suite: str | Path) -> Suite:
    """Returns a suite by the name of a shipped one, or from a YAML file.

    Raises:
        InputError: There is no such suite, or a field is wrong; the message names its line.
    """
    return load_record(Suite, suite, kind="suite", folder=SUITES)
