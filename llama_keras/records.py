"""YAML files checked against a pydantic record: how recipes and suites are read."""

import difflib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from llama_keras.errors import InputError


class Record(BaseModel):
    """A record that refuses unknown fields and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


AnyRecord = TypeVar("AnyRecord", bound=Record)


def shipped_names(folder: Path) -> list[str]:
    """Gives the names of the files that come with the package."""
    return sorted(file.stem for file in folder.glob("*.yaml"))


def load_record(
    record: type[AnyRecord],
    source: str | Path,
    *,
    kind: str,
    folder: Path,
    change: Callable[[Any], Collection[str]] = lambda content: (),
) -> AnyRecord:
    """Gives a record by the name of a shipped file, or from a file ending in .yaml or .yml.

    Args:
        record: what the file must hold.
        source: a name of `shipped_names(folder)`, or a path.
        kind: what the file is called in messages: "recipe", "suite".
        folder: where the shipped files are.
        change: edits what was read before it is checked, and gives the dotted names of the fields
            that no longer come from the file.

    Raises:
        InputError: there is no such file, or a field is wrong; the message names its line.
    """
    file = _find(source, kind, folder)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The {kind} {file} cannot be read: {error}.") from None
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{file} is not YAML: {error}.") from None
    changed = change(content)
    try:
        return record.model_validate(content)
    except ValidationError as error:
        raise InputError(_explain(error, text, file, kind, changed)) from None


def _find(source: str | Path, kind: str, folder: Path) -> Path:
    file = Path(source).expanduser()
    if file.suffix in (".yaml", ".yml"):
        return file
    names = shipped_names(folder)
    if str(source) not in names:
        close = difflib.get_close_matches(str(source), names, n=1)
        hint = f"did you mean {close[0]!r}? Else " if close else ""
        raise InputError(
            f"There is no {kind} {str(source)!r}; {hint}name one of {names}, or give a file whose "
            "name ends in .yaml."
        )
    return folder / f"{source}.yaml"


def _explain(
    error: ValidationError, text: str, file: Path, kind: str, changed: Collection[str]
) -> str:
    problems = []
    for problem in error.errors():
        path = problem["loc"]
        name = ".".join(map(str, path)) or "the whole file"
        is_changed = any(name == field or name.startswith(f"{field}.") for field in changed)
        place = "" if is_changed else f"line {_line(text, path)}, "
        problems.append(f"{place}{name}: {problem['msg']}")
    return f"{file} is not a {kind}: {'; '.join(problems)}."


def _line(text: str, path: tuple[str | int, ...]) -> int:
    """Gives the line of the deepest part of `path` that the YAML text has."""
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
