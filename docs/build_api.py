"""Writes the API pages from the docstrings: `./run docs` calls this."""

import importlib
import pkgutil
import warnings
from pathlib import Path

import pdoc

import llama_keras
from llama_keras.cli.quiet import silence_tensorflow

OUTPUT = Path(__file__).parent / "api"


def main() -> None:
    """Writes one page a module into docs/api."""
    silence_tensorflow()
    names = [llama_keras.__name__]
    for info in pkgutil.walk_packages(llama_keras.__path__, "llama_keras."):
        if not info.name.endswith("__main__"):
            names.append(info.name)
    for name in names:
        module = importlib.import_module(name)
        # pdoc looks for the names of __all__ in the module itself and does not know lazy ones.
        for public in getattr(module, "__all__", ()):
            setattr(module, public, getattr(module, public))
    # It walks into some packages by itself, and then meets our names again.
    warnings.filterwarnings("ignore", message=".*already been added")
    pdoc.render.configure(docformat="google")
    pdoc.pdoc(*names, output_directory=OUTPUT)
    print(f"wrote {OUTPUT}/index.html ({len(names)} modules)")


if __name__ == "__main__":
    main()
