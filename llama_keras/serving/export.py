"""Write tasks as a SavedModel that takes text and gives answers, tokenizer included."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from llama_keras.atomic import new_directory
from llama_keras.errors import InputError
from llama_keras.serving.export_dtype import stored_as
from llama_keras.serving.export_manifest import record, write_manifest
from llama_keras.serving.signature_parts import Signatures
from llama_keras.serving.signatures import EXPORT_SETTINGS, SIGNATURES
from llama_keras.serving.warmup import write_warmup
from llama_keras.training.adapters import merged_lora

FORMATS = ("tf_saved_model", "litert")


def export_task(
    model,
    directory,
    *,
    format: str = "tf_saved_model",
    dtype: str = "float32",
    evaluation: Mapping[str, Any] | None = None,
    **settings,
) -> Path:
    """Writes a SavedModel that a stock TF Serving loads.

    Each weight is written once, and nothing of Keras is in the file: the C++ loader does not
    restore Keras variables that hang on a Keras object, so only the raw TensorFlow variables do.
    LoRA updates are added to the weights that they adapt; the task keeps them.
    The folder appears under its name only when it is complete.

    Args:
        model: a task.
        directory: the version's folder, such as `saved_models/sentiment/1`; a folder whose name is
            no number gets the next free number below it.
        format: `"tf_saved_model"`, or `"litert"` for a folder of another kind, see
            `litert_export.export_litert`.
        dtype: how large matrices are stored: as they are (`"float32"`), in `"bfloat16"` or in
            `"int8"`, see `export_dtype`.
        evaluation: what the manifest tells of the model's quality, part of the data to metrics.
        **settings: what the task's signatures leave open, see `signatures.EXPORT_SETTINGS`.

    Returns:
        The version's folder.

    Raises:
        InputError: the folder exists already, the task has no signatures, or a setting is wrong.
    """
    if format not in FORMATS:
        raise InputError(f"An export has one of the formats {list(FORMATS)}; received {format!r}.")
    if format == "litert":
        from llama_keras.serving.litert_export import export_litert

        _check_litert(settings)
        return export_litert(model, directory, dtype=dtype, **settings)
    target = version_folder(directory)
    _check_kind(model)
    with merged_lora(model), stored_as(dtype, model) as variables:
        signatures = signatures_of(model, **settings)
        told = record(model, signatures, evaluation=evaluation)
        return write_export(
            target,
            functions=signatures.functions,
            trackables=signatures.trackables,
            variables=variables,
            manifest={**told, "stored_dtype": dtype},
            examples={name: told["example"] for name in signatures.functions},
        )


def signatures_of(model, **settings) -> Signatures:
    """Gives what a task answers to.

    Raises:
        InputError: the task has no signatures, or a setting is not known.
    """
    kind = _check_kind(model)
    known = EXPORT_SETTINGS.get(kind, ())
    if unknown := sorted(settings.keys() - set(known)):
        takes = f"one of {list(known)}" if known else "none"
        raise InputError(f"There is no setting {unknown[0]!r}; the export of a {kind} has {takes}.")
    return SIGNATURES[kind](model, **settings)


def _check_kind(model) -> str:
    kind = type(model).__name__
    if kind not in SIGNATURES:
        raise InputError(f"A {kind} cannot be exported; these can: {sorted(SIGNATURES)}.")
    return kind


def _check_litert(settings: Mapping[str, Any]) -> None:
    known = ("max_length", "rows")
    for name, value in settings.items():
        if name not in known:
            raise InputError(f"There is no setting {name!r}; a LiteRT export has {list(known)}.")
        if type(value) is not int:
            raise InputError(f"{name} is a whole number; received {value!r}.")


def write_export(
    target: Path,
    *,
    functions: Mapping[str, Callable],
    trackables: Mapping[str, Any],
    variables: list[tf.Variable],
    manifest: Mapping[str, Any],
    examples: Mapping[str, Mapping[str, Any]],
) -> Path:
    """Writes the folder of one version; it appears when it is complete.

    Args:
        target: from `version_folder`.
        functions: signature name to its `tf.function` with a fixed input signature.
        trackables: tables and resources that they need.
        variables: the weights that they read, each once.
        manifest: from `export_manifest.record`.
        examples: signature name to the example that its warm-up asks.
    """
    module = tf.Module()
    for name, trackable in {"parameters": variables, **trackables}.items():
        setattr(module, name, trackable)
    concrete = {name: function.get_concrete_function() for name, function in functions.items()}
    # No debug information and no Python traces: they hold paths of the machine that exports.
    # Saved gradients stay, with their graph, in the registry of each process that loads them.
    options = tf.saved_model.SaveOptions(save_debug_info=False, experimental_custom_gradients=False)
    # Its temporary name is no number: a server that watches the folder never loads it half written.
    with new_directory(target) as folder:
        tf.saved_model.save(module, str(folder), signatures=concrete, options=options)
        asked = {name: example["request"]["instances"][0] for name, example in examples.items()}
        write_warmup(folder, name=target.parent.name, functions=functions, examples=asked)
        write_manifest(folder, manifest)
    return target


def version_folder(directory: str | Path) -> Path:
    """Gives the folder of a version to write.

    Raises:
        InputError: it exists already.
    """
    path = Path(directory)
    if not path.name.isdigit():
        taken = [int(p.name) for p in path.glob("*") if p.name.isdigit()] if path.is_dir() else []
        path = path / str(max(taken, default=0) + 1)
    if path.exists():
        raise InputError(
            f"'{path}' exists already; choose another version number, or give '{path.parent}' to "
            "get the next free one."
        )
    return path
