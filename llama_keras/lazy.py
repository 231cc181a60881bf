"""Packages whose names load on first use, so that importing them costs nothing."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, str], *, modules: tuple[str, ...] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Gives `__getattr__` and `__dir__` for a package (PEP 562).

    Args:
        package: its full name.
        homes: name to the module of the package that defines it.
        modules: modules that are themselves reached as attributes.
    """
    known = sorted([*homes, *modules])

    def load(name: str) -> Any:
        if name in homes:
            return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
        if name in modules:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {known}")

    return load, lambda: known
