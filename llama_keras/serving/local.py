"""Load a SavedModel in this process with TensorFlow and TF-Text alone, and run its signatures."""

import importlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, MissingDependencyError
from .rest import BYTES_SUFFIX
from .signature_def import DEFAULT_SIGNATURE, Signature, TensorSpec, read_saved_model
from .versions import find_model


class SavedModel:
    """A loaded SavedModel: `SavedModel(path).run("serving_default", text=["Lovely."])`.

    Attributes:
        folder: name, version and path of what was loaded.
        info: its signatures and operations, read from `saved_model.pb`.
    """

    def __init__(self, directory: str | Path):
        """Load the newest version at `directory` (see `versions.find_model`).

        Raises:
            InputError: nothing loadable there.
            MissingDependencyError: TensorFlow, or TF-Text for its ops, is not installed.
        """
        self.folder = find_model(directory)
        self.info = read_saved_model(self.folder.path)
        self._model = _load(self.folder.path)

    @property
    def signatures(self) -> dict[str, Signature]:
        """Serving signatures by name."""
        return self.info.signatures

    def signature(self, name: str | None = None) -> Signature:
        """Return a signature by name, by default `serving_default`.

        Raises:
            InputError: there is no such signature; the message lists the known ones.
        """
        name = name or DEFAULT_SIGNATURE
        if name not in self.signatures:
            known = ", ".join(self.signatures) or "none"
            raise InputError(f"{self.folder.path} has no signature {name!r}; it has: {known}.")
        return self.signatures[name]

    def run(self, signature: str | None = None, /, **inputs: Any) -> dict[str, np.ndarray]:
        """Return the outputs of a signature by name.

        Args:
            signature: its name, by default `serving_default`.
            **inputs: one array-like each; strings as `str` or `bytes`.

        Returns:
            NumPy arrays; string outputs hold `bytes` (dtype object).

        Raises:
            InputError: unknown signature, missing or unknown input, wrong type or shape.
        """
        specs = self.signature(signature).inputs
        if inputs.keys() != specs.keys():
            raise InputError(
                f"Signature {signature or DEFAULT_SIGNATURE} takes the inputs {sorted(specs)}; "
                f"got {sorted(inputs)}."
            )
        arrays = {name: _array(name, inputs[name], spec) for name, spec in specs.items()}
        return self.run_arrays(signature or DEFAULT_SIGNATURE, arrays)

    def run_arrays(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs for arrays that already have the signature's types and shapes."""
        import tensorflow as tf

        specs = self.signatures[signature].inputs
        tensors = {
            name: tf.constant(array, dtype=specs[name].dtype) for name, array in inputs.items()
        }
        outputs = self._model.signatures[signature](**tensors)
        return {name: np.asarray(output.numpy()) for name, output in sorted(outputs.items())}

    def predict(
        self,
        texts: Sequence[str | Mapping[str, str]],
        signature: str | None = None,
        *,
        batch_size: int = 32,
    ) -> list[dict[str, Any]]:
        """Return one dict of outputs per text, strings as `str` (`bytes` for `*_bytes` outputs).

        Args:
            texts: strings; for a signature with several string inputs, dicts of them by name.
            signature: its name, by default `serving_default`.
            batch_size: texts run at once.

        Raises:
            InputError: the signature does not take strings, or a text is not what it takes.
        """
        spec = self.signature(signature)
        if {tensor.dtype for tensor in spec.inputs.values()} != {"string"}:
            raise InputError(
                f"Signature {signature or DEFAULT_SIGNATURE} takes {sorted(spec.inputs)}, not "
                "strings alone; choose another with --signature."
            )
        named = [self._named(text, list(spec.inputs)) for text in texts]
        rows: list[dict[str, Any]] = []
        for start in range(0, len(named), batch_size):
            part = named[start : start + batch_size]
            outputs = self.run(
                signature, **{key: [row[key] for row in part] for key in spec.inputs}
            )
            rows += _rows(outputs, len(part))
        return rows

    def _named(self, text: str | Mapping[str, str], names: list[str]) -> Mapping[str, str]:
        if isinstance(text, str) and len(names) == 1:
            return {names[0]: text}
        if isinstance(text, str) or text.keys() != set(names):
            shape = "{" + ", ".join(f'"{name}": "…"' for name in names) + "}"
            raise InputError(
                f"{str(text)[:80]!r} is not what {self.folder.path} takes, one string input of "
                f"each name: {shape}."
            )
        return text


@contextmanager
def _without_gradient_warnings() -> Iterator[None]:
    """Has TensorFlow not say of each function that nobody can train what is served."""
    logger = logging.getLogger("absl")
    logger.addFilter(_says_nothing_of_gradients)
    try:
        yield
    finally:
        logger.removeFilter(_says_nothing_of_gradients)


def _says_nothing_of_gradients(record: logging.LogRecord) -> bool:
    return "unsaved custom gradients" not in record.getMessage()


def _load(path: Path) -> Any:
    try:
        tf = importlib.import_module("tensorflow")
    except ImportError as error:
        raise MissingDependencyError(
            f"TensorFlow is needed to run {path}: pip install 'tensorflow>=2.21,<2.22' ({error})"
        ) from error
    try:
        importlib.import_module("tensorflow_text")  # registers its ops
        missing_text = None
    except ImportError as error:
        missing_text = error
    try:
        with _without_gradient_warnings():
            return tf.saved_model.load(str(path))
    except Exception as error:  # TensorFlow raises many kinds for a damaged model
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else repr(error)
        if missing_text is not None and "not registered" in str(error):
            raise MissingDependencyError(
                f"{path} uses operations of TF-Text ({reason}): pip install tensorflow-text"
            ) from missing_text
        raise InputError(
            f"{path} does not load in TensorFlow {tf.__version__}: {reason} Export it again."
        ) from error


def _array(name: str, value: Any, spec: TensorSpec) -> np.ndarray:
    try:
        array = as_array(value, spec.dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"Input {name!r} does not convert to {spec.dtype}: {error}.") from None
    if not spec.accepts(array.shape):
        raise InputError(
            f"Input {name!r} has shape {array.shape}; the signature takes {spec.shape} "
            "(-1: any size)."
        )
    return array


def as_array(value: Any, dtype: str) -> np.ndarray:
    """Return values as an array of TensorFlow's type; strings as `bytes` (dtype object).

    Raises:
        TypeError, ValueError, OverflowError: they do not convert.
    """
    return _strings(value) if dtype == "string" else np.asarray(value, numpy_type(dtype))


def numpy_type(dtype: str) -> Any:
    """Return NumPy's type of TensorFlow's lower-case name."""
    return {"float": np.float32, "double": np.float64, "half": np.float16}.get(dtype, dtype)


def _strings(value: Any) -> np.ndarray:
    array = np.asarray(value, dtype=object)
    encoded = np.empty(array.size, object)
    for index, item in enumerate(array.reshape(-1)):
        if not isinstance(item, str | bytes):
            raise TypeError(f"expected str or bytes, got {type(item).__name__}")
        encoded[index] = item.encode("utf-8") if isinstance(item, str) else item
    return encoded.reshape(array.shape)


def _rows(outputs: Mapping[str, np.ndarray], number: int) -> list[dict[str, Any]]:
    for name, array in outputs.items():
        if array.shape[:1] != (number,):
            raise InputError(
                f"Output {name!r} has shape {array.shape} for {number} texts, so it holds no "
                "answer per text; choose another signature with --signature."
            )
    columns = [_python(name, array) for name, array in outputs.items()]
    return [dict(zip(outputs, row, strict=True)) for row in zip(*columns, strict=True)]


def _python(name: str, array: np.ndarray) -> list[Any]:
    if array.dtype == object and not name.endswith(BYTES_SUFFIX):
        flat = np.empty(array.size, object)
        flat[:] = [item.decode("utf-8", "replace") for item in array.reshape(-1)]
        array = flat.reshape(array.shape)
    return array.tolist()
