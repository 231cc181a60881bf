"""Small frozen settings objects by name: a table of classes, and plain values to and from them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from llama_keras.errors import InputError


def from_settings(entry: Any, *, table: Mapping[str, type], kind: str) -> Any:
    """Gives the object that a name or plain settings stand for.

    Args:
        entry: a name of the table, `{"name": NAME, SETTING: VALUE, …}`, or an object already.
        table: name to frozen dataclass.
        kind: what the objects are called in messages.

    Raises:
        InputError: there is no such name or setting; the message lists those that there are.
    """
    if isinstance(entry, tuple(table.values())):
        return entry
    fields = {"name": entry} if isinstance(entry, str) else entry
    if not isinstance(fields, Mapping) or "name" not in fields:
        raise InputError(
            f"A {kind} is a name or {{name: NAME, SETTING: VALUE}}; received {entry!r}. The names "
            f"are {list(table)}."
        )
    name = fields["name"]
    if name not in list(table):
        raise InputError(f"There is no {kind} {name!r}; expected one of {list(table)}.")
    settings = {key: value for key, value in fields.items() if key != "name"}
    known = [field.name for field in dataclasses.fields(table[name])]
    for key in settings:
        if key not in known:
            raise InputError(f"The {kind} {name} has no setting {key!r}; it has {known}.")
    return table[name](**settings)


def settings_of(item: Any) -> dict[str, Any]:
    """Gives what `from_settings` reads: name and settings as values that JSON and YAML hold."""
    settings = {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}
    plain = {key: list(v) if isinstance(v, tuple) else v for key, v in settings.items()}
    return {"name": item.name, **plain}
