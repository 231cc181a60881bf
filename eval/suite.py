"""Suites: YAML files that name the data, the labels and the metrics of an evaluation."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from llama_keras.errors import InputError

SUITES = Path(__file__).parent / "suites"
# The keys of metrics.METRICS, repeated so that reading a suite does not load scikit-learn.
MetricName = Literal["accuracy", "f1", "micro_f1", "mcc"]


def _no_repeats(names: list) -> list:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ValueError(f"repeated: {repeated}")
    return names


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SuiteData(_Strict):
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


class Suite(_Strict):
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
    return sorted(file.stem for file in SUITES.glob("*.yaml"))


def load_suite(suite: str | Path) -> Suite:
    """Returns a suite by the name of a shipped one, or from a YAML file.

    Raises:
        InputError: There is no such suite, or a field is wrong; the message names its line.
    """
    file = Path(suite).expanduser()
    if file.suffix not in (".yaml", ".yml"):
        file = SUITES / f"{suite}.yaml"
        if str(suite) not in suite_names():
            raise InputError(
                f"There is no suite {str(suite)!r}; name one of {suite_names()}, or give a file "
                "whose name ends in .yaml."
            )
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The suite {file} cannot be read: {error}.") from None
    try:
        return Suite.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise InputError(f"{file} is not YAML: {error}.") from None
    except ValidationError as error:
        raise InputError(_explain(error, text, file)) from None


def _explain(error: ValidationError, text: str, file: Path) -> str:
    problems = []
    for problem in error.errors():
        path = problem["loc"]
        name = ".".join(map(str, path)) or "the whole file"
        problems.append(f"line {_line(text, path)}, {name}: {problem['msg']}")
    return f"{file} is not a suite: {'; '.join(problems)}."


def _line(text: str, path: tuple[str | int, ...]) -> int:
    """Returns the line of the deepest part of `path` that the YAML text has."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    line = node.start_mark.line + 1 if node else 1
    for key in path:
        if isinstance(node, yaml.MappingNode):
            found = [pair for pair in node.value if pair[0].value == str(key)]
            if not found:
                break
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int):
            node = node.value[key]
            line = node.start_mark.line + 1
    return line
