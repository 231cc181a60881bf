"""What `verify` runs in a Python of its own: TensorFlow and TF-Text alone, nothing of this package.

Reads one request from standard input and prints a JSON object a line, so that what was found is
there even where loading ends the process:

    {"foreign": [...]}   operations that TensorFlow's core does not have
    {"paths": [...]}     absolute paths in the strings of the graph and in the assets
    {"outputs": {...}}   the answer, or {"error": "..."}
"""

import json
import re
import sys
from pathlib import Path

# Variables have names like /layer/kernel: a path is one of a machine's usual folders or a file with
# an ending. A piece of a vocabulary has less in it.
_ROOTS = rb"home|Users|root|tmp|usr|opt|var|mnt|srv|etc|media|private|Volumes|data|work|workspace"
_PATH = re.compile(
    rb"(?<![\w:/.])(?:/(?:" + _ROOTS + rb")(?:/[\w.+@-]{2,}){2,}"
    rb"|(?:/[\w.+@-]{2,})+/[\w.+@-]+\.[A-Za-z]\w{0,7})|(?<!\w)[A-Za-z]:\\\w+\\[\w.\\-]+"
)
_MOST_PATHS = 5


def main() -> None:
    """Answers the request."""
    request = json.load(sys.stdin)
    sys.modules["llama_keras"] = None  # pyright: ignore[reportArgumentType]  # refuses its import
    try:
        import tensorflow as tf
        from tensorflow.python.framework import op_def_registry

        # Before TF-Text: it registers its own operations.
        known = op_def_registry.get
        _tell(foreign=sorted(op for op in request["operations"] if known(op) is None))
        folder = Path(request["folder"])
        _tell(paths=_paths(folder))

        import tensorflow_text  # noqa: F401

        model = tf.saved_model.load(str(folder))
        if request["columns"] is not None:
            function = model.signatures[request["signature"]]
            specs = function.structured_input_signature[1]
            columns = {
                name: tf.constant(values, specs[name].dtype)
                for name, values in request["columns"].items()
            }
            answer = function(**columns)
            _tell(outputs={name: _plain(v.numpy().tolist()) for name, v in answer.items()})
        else:
            _tell(outputs={})
    except Exception as error:  # TensorFlow raises many kinds for a damaged model
        _tell(error=f"{type(error).__name__}: {error}")


def _tell(**found) -> None:
    print(json.dumps(found), flush=True)


def _plain(value):
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _paths(folder: Path) -> list[str]:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    graph = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    texts = list(_strings(graph))
    texts += [
        file.read_bytes() for file in sorted((folder / "assets").rglob("*")) if file.is_file()
    ]
    found = {match.group().decode("utf-8", "replace") for t in texts for match in _PATH.finditer(t)}
    return sorted(found)[:_MOST_PATHS]


def _strings(message):
    """Gives every string in a message as bytes."""
    left = [message]
    while left:
        value = left.pop()
        if isinstance(value, str | bytes):
            yield value.encode() if isinstance(value, str) else value
        elif hasattr(value, "ListFields"):
            # The bytes of numbers are no text.
            left += [item for field, item in value.ListFields() if field.name != "tensor_content"]
        elif hasattr(value, "items"):
            left += [*value.keys(), *value.values()]
        elif hasattr(value, "__getitem__"):  # repeated fields have no `__iter__`
            left += list(value)


if __name__ == "__main__":
    main()
