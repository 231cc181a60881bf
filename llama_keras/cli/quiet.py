"""Keeps TensorFlow's start-up notes off the terminal, where they would hide our own lines."""

import contextlib
import importlib.abc
import importlib.machinery
import os
import sys
import tempfile
from collections.abc import Iterator


def silence_tensorflow() -> None:
    """Hides what TensorFlow prints while it is imported, and its notes below fatal afterwards.

    TensorFlow 2.21 writes about oneDNN and CUDA before it reads TF_CPP_MIN_LOG_LEVEL, so its
    import runs with the standard error stream put aside; if the import fails, all is shown.
    With TF_CPP_MIN_LOG_LEVEL set to 0 or 1 in the environment all of it stays.
    """
    level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if level not in ("0", "1") and "tensorflow" not in sys.modules:
        sys.meta_path.insert(0, _QuietFinder())


class _QuietFinder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname != "tensorflow":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _QuietLoader(spec.loader)
        return spec


class _QuietLoader(importlib.abc.Loader):
    def __init__(self, loader):
        self._loader = loader

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        module.__loader__ = self._loader
        with stderr_put_aside():
            self._loader.exec_module(module)


@contextlib.contextmanager
def stderr_put_aside() -> Iterator[None]:
    """Collects what is written to file descriptor 2 and shows it only if the block raises."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            if failed:
                aside.seek(0)
                os.write(2, aside.read())
