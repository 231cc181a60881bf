"""Serving: SavedModels loaded, served over TF Serving's REST, and asked by a light client.

Names load on first use, so that the client and the C API runner never import TensorFlow.
"""

from typing import TYPE_CHECKING

from llama_keras.lazy import lazy_names

if TYPE_CHECKING:
    from .c_api import CApiModel as CApiModel
    from .client import AsyncClient as AsyncClient
    from .client import Client as Client
    from .client import ServingError as ServingError
    from .client import predict as predict
    from .export_many import export_many as export_many
    from .local import SavedModel as SavedModel
    from .server import ModelServer as ModelServer
    from .server import serve_in_background as serve_in_background
    from .versions import find_model as find_model

_HOMES = {
    "AsyncClient": "client",
    "CApiModel": "c_api",
    "Client": "client",
    "ModelServer": "server",
    "SavedModel": "local",
    "ServingError": "client",
    "export_many": "export_many",
    "find_model": "versions",
    "predict": "client",
    "serve_in_background": "server",
}
_MODULES = tuple(
    "c_api client export local manifest rest server signature_def signatures versions".split()
)

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]

__getattr__, __dir__ = lazy_names(__name__, _HOMES, modules=_MODULES)
