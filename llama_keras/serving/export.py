"""Write a task as a SavedModel that takes text and gives answers, tokenizer included."""

import importlib.metadata
import json
from pathlib import Path

import tensorflow as tf

from llama_keras.atomic import new_directory
from llama_keras.errors import InputError
from llama_keras.serving.manifest import MANIFEST_FILE
from llama_keras.serving.signature_parts import Signatures
from llama_keras.serving.signatures import EXPORT_SETTINGS, SIGNATURES
from llama_keras.serving.warmup import write_warmup

PACKAGES = ("llama-keras", "tensorflow", "tensorflow-text", "keras")


def export_task(model, directory, **settings) -> Path:
    """Writes a SavedModel that a stock TF Serving loads.

    Each weight is written once, and nothing of Keras is in the file: the C++ loader does not
    restore Keras variables that hang on a Keras object, so only the raw TensorFlow variables do.
    The folder appears under its name only when it is complete.

    Args:
        model: a task.
        directory: the version's folder, such as `saved_models/sentiment/1`; a folder whose name is
            no number gets the next free number below it.
        **settings: what the task's signatures leave open, see `signatures.EXPORT_SETTINGS`.

    Returns:
        The version's folder.

    Raises:
        InputError: the folder exists already, the task has no signatures, or a setting is wrong.
    """
    target = _version_folder(Path(directory))
    kind = type(model).__name__
    if kind not in SIGNATURES:
        raise InputError(f"A {kind} cannot be exported; these can: {sorted(SIGNATURES)}.")
    known = EXPORT_SETTINGS.get(kind, ())
    if unknown := sorted(settings.keys() - set(known)):
        takes = f"one of {list(known)}" if known else "none"
        raise InputError(f"There is no setting {unknown[0]!r}; the export of a {kind} has {takes}.")
    signatures = SIGNATURES[kind](model, **settings)
    # Its temporary name is no number: a server that watches the folder never loads it half written.
    with new_directory(target) as folder:
        _save(model, signatures, folder)
        write_warmup(
            folder,
            name=target.parent.name,
            functions=signatures.functions,
            example=_example(signatures),
        )
        manifest = json.dumps(_manifest(signatures), indent=2, ensure_ascii=False)
        (folder / MANIFEST_FILE).write_text(manifest + "\n", encoding="utf-8")
    return target


def _version_folder(path: Path) -> Path:
    if not path.name.isdigit():
        taken = [int(p.name) for p in path.glob("*") if p.name.isdigit()] if path.is_dir() else []
        path = path / str(max(taken, default=0) + 1)
    if path.exists():
        raise InputError(
            f"'{path}' exists already; choose another version number, or give '{path.parent}' to "
            "get the next free one."
        )
    return path


def _save(model, signatures: Signatures, folder: Path) -> None:
    module = tf.Module()
    tracked = {"parameters": [variable.value for variable in model.weights]}
    for name, trackable in {**tracked, **signatures.trackables}.items():
        setattr(module, name, trackable)
    functions = {
        name: function.get_concrete_function() for name, function in signatures.functions.items()
    }
    # No debug information and no Python traces: they hold paths of the machine that exports.
    options = tf.saved_model.SaveOptions(save_debug_info=False)
    tf.saved_model.save(module, str(folder), signatures=functions, options=options)


def _example(signatures: Signatures) -> dict[str, str]:
    asked = signatures.example_text
    return {"text": asked} if isinstance(asked, str) else asked


def _manifest(signatures: Signatures) -> dict:
    asked = _example(signatures)
    columns = {name: tf.constant([text]) for name, text in asked.items()}
    answer = signatures.functions["serving_default"](**columns)
    return {
        "task": signatures.task,
        "labels": list(signatures.labels),
        "cleaning": list(signatures.cleaning),
        **signatures.settings,
        "signatures": {
            name: _describe(function) for name, function in signatures.functions.items()
        },
        "example": {
            "request": {"instances": [asked]},
            "response": {"predictions": [{k: _plain(v[0]) for k, v in answer.items()}]},
        },
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _describe(function) -> dict:
    def specs(items):
        return {
            name: {"dtype": spec.dtype.name, "shape": spec.shape.as_list()} for name, spec in items
        }

    concrete = function.get_concrete_function()
    return {
        "inputs": specs((spec.name, spec) for spec in function.input_signature),
        "outputs": specs(concrete.structured_outputs.items()),
    }


def _plain(tensor):
    value = tensor.numpy()
    if isinstance(value, bytes):
        return value.decode()
    return [_plain(item) for item in tensor] if value.dtype == object else value.tolist()
