"""Load and run a SavedModel through the TensorFlow C API, as TF Serving's C++ loader does.

An export that `tf.saved_model.load` accepts in Python can fail in the C++ loader; this runs the
C++ one with ctypes, in a process that never imports `tensorflow`:

    python -m llama_keras.serving.c_api NAME/1 --signature serving_default --inputs request.json

The request is TF Serving's predict body (`instances` or `inputs`) or plain `{name: values}`; the
answer is printed as `{"outputs": {name: values}}`.
"""

import argparse
import ctypes
import importlib.util
import json
import sys
from collections.abc import Mapping
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, MissingDependencyError
from .rest import RestError, decode_inputs, encode_outputs, parse_body, requested_signature
from .signature_def import DEFAULT_SIGNATURE, Signature, read_saved_model
from .versions import find_model

# TF-Text op library -> beginnings of the op names that it holds.
TEXT_LIBRARIES = {
    "_sentencepiece_tokenizer": "Sentencepiece",
    "_regex_split_ops": "RegexSplitWithOffsets",
    "_normalize_ops": "NormalizeUTF8",
}
_STRING = 7
_STRING_BYTES = 24  # sizeof(TF_TString)
_NUMBERS: dict[int, Any] = {
    1: np.float32, 2: np.float64, 3: np.int32, 4: np.uint8, 5: np.int16, 6: np.int8, 9: np.int64,
    10: np.bool_, 17: np.uint16, 19: np.float16, 22: np.uint32, 23: np.uint64,
}  # fmt: skip
_NUMBER_TYPES = {np.dtype(numpy_type): number for number, numpy_type in _NUMBERS.items()}


class _Output(ctypes.Structure):
    """TF_Output: an operation and the index of its output."""

    _fields_ = [("operation", c_void_p), ("index", c_int)]


# function -> (result, arguments); see tensorflow/c/c_api.h.
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "TF_Version": (c_char_p, []),
    "TF_NewStatus": (c_void_p, []),
    "TF_DeleteStatus": (None, [c_void_p]),
    "TF_GetCode": (c_int, [c_void_p]),
    "TF_Message": (c_char_p, [c_void_p]),
    "TF_LoadLibrary": (c_void_p, [c_char_p, c_void_p]),
    "TF_NewGraph": (c_void_p, []),
    "TF_DeleteGraph": (None, [c_void_p]),
    "TF_NewSessionOptions": (c_void_p, []),
    "TF_DeleteSessionOptions": (None, [c_void_p]),
    "TF_LoadSessionFromSavedModel": (
        c_void_p,
        [c_void_p, c_void_p, c_char_p, POINTER(c_char_p), c_int, c_void_p, c_void_p, c_void_p],
    ),
    "TF_CloseSession": (None, [c_void_p, c_void_p]),
    "TF_DeleteSession": (None, [c_void_p, c_void_p]),
    "TF_GraphOperationByName": (c_void_p, [c_void_p, c_char_p]),
    "TF_SessionRun": (
        None,
        [c_void_p, c_void_p]
        + [POINTER(_Output), POINTER(c_void_p), c_int] * 2
        + [c_void_p, c_int, c_void_p, c_void_p],
    ),
    "TF_AllocateTensor": (c_void_p, [c_int, POINTER(c_int64), c_int, c_size_t]),
    "TF_DeleteTensor": (None, [c_void_p]),
    "TF_TensorType": (c_int, [c_void_p]),
    "TF_NumDims": (c_int, [c_void_p]),
    "TF_Dim": (c_int64, [c_void_p, c_int]),
    "TF_TensorData": (c_void_p, [c_void_p]),
    "TF_TensorByteSize": (c_size_t, [c_void_p]),
    "TF_StringInit": (None, [c_void_p]),
    "TF_StringCopy": (None, [c_void_p, c_char_p, c_size_t]),
    "TF_StringDealloc": (None, [c_void_p]),
    "TF_StringGetDataPointer": (c_void_p, [c_void_p]),
    "TF_StringGetSize": (c_size_t, [c_void_p]),
}


class CApiModel:
    """A SavedModel in a C++ session; use it as a context manager or call `close`.

    Attributes:
        info: signatures and operations, read from `saved_model.pb`.
        tensorflow_version: the version of the TensorFlow library that runs it.
    """

    def __init__(self, directory: str | Path):
        """Load the newest version at `directory` (see `versions.find_model`).

        Raises:
            InputError: `tensorflow` is imported in this process, or the model does not load.
            MissingDependencyError: TensorFlow's or TF-Text's libraries are not installed.
        """
        if "tensorflow" in sys.modules:
            raise InputError(
                "The C API runner needs a process of its own: tensorflow is already imported "
                "here and both in one process crash. Run: python -m llama_keras.serving.c_api"
            )
        self.info = read_saved_model(find_model(directory).path)
        self._library = _tensorflow_library()
        self._status = self._library.TF_NewStatus()
        for path in _text_libraries(self.info.operations):
            self._library.TF_LoadLibrary(str(path).encode(), self._status)
            self._check(f"{path.name} does not load")
        self._graph = self._library.TF_NewGraph()
        self._session = self._load()

    @property
    def signatures(self) -> dict[str, Signature]:
        """Serving signatures by name."""
        return self.info.signatures

    @property
    def tensorflow_version(self) -> str:
        """Version of the loaded TensorFlow library."""
        return self._library.TF_Version().decode()

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs of a signature.

        Args:
            signature: its name.
            inputs: name to array; strings as an object array of `bytes`.

        Raises:
            InputError: unknown signature, missing or unknown inputs, or the graph refused them.
        """
        if signature not in self.signatures:
            known = ", ".join(self.signatures)
            raise InputError(f"There is no signature {signature!r}; the model has: {known}.")
        chosen = self.signatures[signature]
        required = chosen.inputs.keys() - chosen.optional
        if not required <= inputs.keys() <= chosen.inputs.keys():
            raise InputError(
                f"Signature {signature} takes {sorted(chosen.inputs)}; got {sorted(inputs)}."
            )
        feeds = {chosen.inputs[name].tensor: array for name, array in inputs.items()}
        fetches = [spec.tensor for spec in chosen.outputs.values()]
        return dict(zip(chosen.outputs, self._run(feeds, fetches), strict=True))

    def close(self) -> None:
        """Free the session and the graph."""
        if self._session:
            self._library.TF_CloseSession(self._session, self._status)
            self._library.TF_DeleteSession(self._session, self._status)
            self._library.TF_DeleteGraph(self._graph)
            self._library.TF_DeleteStatus(self._status)
            self._session = None

    def __enter__(self) -> "CApiModel":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _load(self) -> int:
        options = self._library.TF_NewSessionOptions()
        tags = (c_char_p * 1)(b"serve")
        path = str(self.info.path).encode()
        session = self._library.TF_LoadSessionFromSavedModel(
            options, None, path, tags, 1, self._graph, None, self._status
        )
        self._library.TF_DeleteSessionOptions(options)
        self._check(f"{self.info.path} does not load in the C++ loader")
        return session

    def _check(self, what: str) -> None:
        if self._library.TF_GetCode(self._status):
            message = self._library.TF_Message(self._status).decode("utf-8", "replace")
            raise InputError(f"{what}: {message[:600]}")

    def _run(self, feeds: Mapping[str, np.ndarray], fetches: list[str]) -> list[np.ndarray]:
        tensors = [self._tensor(array) for array in feeds.values()]
        results = (c_void_p * len(fetches))()
        try:
            self._library.TF_SessionRun(
                self._session,
                None,
                (_Output * len(feeds))(*map(self._endpoint, feeds)),
                (c_void_p * len(feeds))(*tensors),
                len(feeds),
                (_Output * len(fetches))(*map(self._endpoint, fetches)),
                results,
                len(fetches),
                None,
                0,
                None,
                self._status,
            )
            self._check("The graph refused the inputs")
            return [self._array(result) for result in results]
        finally:
            for tensor in tensors:
                self._delete_input(tensor)
            for result in results:
                self._library.TF_DeleteTensor(result)

    def _endpoint(self, tensor: str) -> _Output:
        name, _, index = tensor.partition(":")
        operation = self._library.TF_GraphOperationByName(self._graph, name.encode())
        if not operation:
            raise InputError(f"The graph of {self.info.path} has no operation {name!r}.")
        return _Output(operation, int(index or 0))

    def _tensor(self, array: np.ndarray) -> int:
        dims = (c_int64 * max(array.ndim, 1))(*array.shape)
        if array.dtype != object:
            array = np.asarray(array, order="C")
            number = _NUMBER_TYPES[array.dtype]
            tensor = self._library.TF_AllocateTensor(number, dims, array.ndim, array.nbytes)
            ctypes.memmove(self._library.TF_TensorData(tensor), array.ctypes.data, array.nbytes)
            return tensor
        size = _STRING_BYTES * array.size
        tensor = self._library.TF_AllocateTensor(_STRING, dims, array.ndim, size)
        data = self._library.TF_TensorData(tensor)
        for index, item in enumerate(array.reshape(-1)):
            place = data + _STRING_BYTES * index
            self._library.TF_StringInit(place)
            self._library.TF_StringCopy(place, item, len(item))
        return tensor

    def _delete_input(self, tensor: int) -> None:
        """Free a tensor of ours; TensorFlow copies strings in and leaves these to the caller."""
        if self._library.TF_TensorType(tensor) == _STRING:
            data = self._library.TF_TensorData(tensor)
            size = self._library.TF_TensorByteSize(tensor)
            for offset in range(0, size, _STRING_BYTES):
                self._library.TF_StringDealloc(data + offset)
        self._library.TF_DeleteTensor(tensor)

    def _array(self, tensor: int) -> np.ndarray:
        library = self._library
        number = library.TF_TensorType(tensor)
        shape = [library.TF_Dim(tensor, axis) for axis in range(library.TF_NumDims(tensor))]
        data = library.TF_TensorData(tensor)
        if number == _STRING:
            flat = np.empty(int(np.prod(shape)), object)
            for index in range(flat.size):
                place = data + _STRING_BYTES * index
                length = library.TF_StringGetSize(place)
                pointer = library.TF_StringGetDataPointer(place)
                flat[index] = ctypes.string_at(pointer, length) if length else b""
            return flat.reshape(shape)
        if number not in _NUMBERS:
            raise InputError(f"Outputs of TensorFlow type number {number} are not supported.")
        size = library.TF_TensorByteSize(tensor)
        raw = ctypes.string_at(data, size) if size else b""
        return np.frombuffer(raw, _NUMBERS[number]).reshape(shape)


def _tensorflow_library() -> ctypes.CDLL:
    folder = _package_folder("tensorflow", "tensorflow")
    for pattern in ("libtensorflow_framework.*", "libtensorflow_cc.*"):
        files = sorted(folder.glob(pattern))
        if not files:
            raise MissingDependencyError(f"{folder} holds no {pattern}; reinstall tensorflow.")
        # Global symbols: the op libraries of TF-Text resolve against them.
        library = ctypes.CDLL(str(files[0]), mode=ctypes.RTLD_GLOBAL)
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _text_libraries(operations: frozenset[str]) -> list[Path]:
    needed = [
        name
        for name, prefix in TEXT_LIBRARIES.items()
        if any(operation.startswith(prefix) for operation in operations)
    ]
    if not needed:
        return []
    folder = _package_folder("tensorflow_text", "tensorflow-text") / "python" / "ops"
    return [folder / f"{name}.so" for name in needed]


def _package_folder(module: str, package: str) -> Path:
    spec = importlib.util.find_spec(module)  # a top-level name: finds it without importing
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(f"{package} is not installed: pip install {package}")
    return Path(spec.submodule_search_locations[0])


def main(arguments: list[str] | None = None) -> int:
    """Run one request from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m llama_keras.serving.c_api")
    parser.add_argument("directory", help="SavedModel folder, NAME/ or NAME/VERSION/")
    parser.add_argument("--signature", help="by default the request's, else serving_default")
    parser.add_argument("--inputs", help="JSON file with the request; - for standard input")
    options = parser.parse_args(arguments)
    try:
        with CApiModel(options.directory) as model:
            print(_answer(model, options.signature, options.inputs))
    except (InputError, MissingDependencyError, RestError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _answer(model: CApiModel, signature: str | None, file: str | None) -> str:
    if file is None:
        return json.dumps({"signatures": model.info.metadata}, indent=1)
    document = parse_body(sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes())
    name = signature or requested_signature(document) or DEFAULT_SIGNATURE
    if name not in model.signatures:
        raise InputError(f"No signature {name!r}; the model has: {', '.join(model.signatures)}.")
    if not document.keys() & {"instances", "inputs"}:
        document = {"inputs": document}
    inputs, _ = decode_inputs(document, signature=model.signatures[name])
    outputs = model.run(name, inputs)
    if len(outputs) > 1:
        return encode_outputs(outputs, rows=False).decode().strip()
    # REST leaves out the name of a single output; here it is always printed.
    values = json.loads(encode_outputs(outputs, rows=False))["outputs"]
    return json.dumps({"outputs": {next(iter(outputs)): values}}, ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main())
