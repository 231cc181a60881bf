"""What an export says about itself, in `signature.json`."""

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from llama_keras.errors import InputError
from llama_keras.serving.manifest import MANIFEST_FILE
from llama_keras.serving.signature_parts import Signatures
from llama_keras.training.adapters import weights_without_lora

PACKAGES = ("llama-keras", "tensorflow", "tensorflow-text", "keras")


def record(
    model, signatures: Signatures, *, evaluation: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Gives what is told of one task; the example's answer is computed here, by the graph.

    Args:
        model: the task.
        signatures: its own.
        evaluation: part of the data to metrics, as `metrics.json` of a run has them.
    """
    asked, weights = signatures.example_text, weights_without_lora(model)
    asked = {"text": asked} if isinstance(asked, str) else asked
    columns = {name: tf.constant([text]) for name, text in asked.items()}
    answer = signatures.functions["serving_default"](**columns)
    return {
        "task": signatures.task,
        "labels": list(signatures.labels),
        "cleaning": list(signatures.cleaning),
        **signatures.settings,
        "limits": _limits(model),
        "signatures": {
            name: _describe(function) for name, function in signatures.functions.items()
        },
        "example": {
            "request": {"instances": [asked]},
            "response": {"predictions": [{k: _plain(v[0]) for k, v in answer.items()}]},
        },
        "dtype": model.backbone.compute_dtype,
        "weights": {
            "sha256": weights_sha256(weights),
            "parameters": int(sum(np.prod(variable.shape) for variable in weights)),
        },
        "tokenizer": {
            "sha256": hashlib.sha256(model.tokenizer.spec.to_json().encode()).hexdigest()
        },
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        **({"evaluation": dict(evaluation)} if evaluation else {}),
    }


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Writes `signature.json`, with the sizes of what lies in the folder by then.

    Args:
        folder: of `saved_model.pb`.
        manifest: from `record`.
    """
    sizes = {
        str(file.relative_to(folder)): file.stat().st_size
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    text = json.dumps({**manifest, "bytes": sizes}, indent=2, ensure_ascii=False)
    (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")


def evaluation_of(run: Path) -> dict[str, Any]:
    """Gives the metrics of a run's data for the manifest, nothing where the folder has none."""
    file = run / "metrics.json"
    if not file.is_file():
        return {}
    try:
        metrics = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}); repair or remove it.") from None
    if not isinstance(metrics, dict):
        raise InputError(f"{file} should hold a JSON object; repair or remove it.")
    told = {name: metrics[name] for name in ("validation", "test") if metrics.get(name)}
    return {"recipe": metrics.get("recipe"), **told} if told else {}


def weights_sha256(weights: Iterable[Any]) -> str:
    """Gives the SHA-256 of weights' dtypes, shapes and values, in their order."""
    digest = hashlib.sha256()
    for variable in weights:
        digest.update(content(variable))
    return digest.hexdigest()


def content(variable) -> bytes:
    """Gives the SHA-256 of a Keras variable's dtype, shape and values."""
    array = np.ascontiguousarray(variable.value.numpy())
    digest = hashlib.sha256(f"{array.dtype} {array.shape}\0".encode())
    digest.update(array.view("uint8").data if array.size else b"")
    return digest.digest()


def _limits(model) -> dict[str, int]:
    context = model.backbone.config.max_sequence_length
    own = getattr(model, "max_sequence_length", context)
    return {"context_length": context, "max_sequence_length": own}


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
