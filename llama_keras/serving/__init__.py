"""Serving: SavedModels loaded, served over TF Serving's REST, and asked by a light client.

Names load on first use, so that the client and the C API runner never import TensorFlow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .c_api import CApiModel as CApiModel
    from .client import ServingError as ServingError
    from .client import predict as predict
    from .local import SavedModel as SavedModel
    from .server import ModelServer as ModelServer
    from .server import serve_in_background as serve_in_background
    from .versions import find_model as find_model

_HOMES = {
    "CApiModel": "c_api",
    "ModelServer": "server",
    "SavedModel": "local",
    "ServingError": "client",
    "find_model": "versions",
    "predict": "client",
    "serve_in_background": "server",
}
_MODULES = (
    "c_api client export local manifest rest server signature_def signatures versions".split()
)

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, *_MODULES])
