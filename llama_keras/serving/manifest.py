"""Read `signature.json`, the contract that an export keeps beside `saved_model.pb`."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError

MANIFEST_FILE = "signature.json"
# What each key holds where it is there.
_KINDS: dict[str, type] = {
    **dict.fromkeys(("task", "dtype"), str),
    "labels": list,
    **dict.fromkeys(("signatures", "example", "versions", "limits"), dict),
    **dict.fromkeys(("weights", "evaluation", "heads"), dict),
}


@dataclass(frozen=True)
class Manifest:
    """What an export says about itself; every field is empty where the file is missing.

    Attributes:
        task: such as `"text_classification"`.
        labels: class names in the order of the `scores` output.
        signatures: signature name to its description.
        example_request: a request body in TF Serving's REST form.
        example_response: the true answer to it.
        versions: package name to the version that wrote the export.
        limits: `context_length` and `max_sequence_length`, in tokens.
        dtype: what the model computes in, such as `"bfloat16"`.
        weights_sha256: of the weights, by `export_manifest.weights_sha256`.
        evaluation: part of the data to the metrics that the model reached on it.
        heads: of several tasks in one export, name to what is told of each.
        content: all that the file holds.
    """

    task: str = ""
    labels: tuple[str, ...] = ()
    signatures: dict[str, Any] = field(default_factory=dict)
    example_request: dict[str, Any] = field(default_factory=dict)
    example_response: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    dtype: str = ""
    weights_sha256: str = ""
    evaluation: dict[str, Any] = field(default_factory=dict)
    heads: dict[str, Any] = field(default_factory=dict)
    content: dict[str, Any] = field(default_factory=dict)


def read_manifest(directory: str | Path) -> Manifest:
    """Return the manifest of a SavedModel folder, an empty one where it has none.

    Raises:
        InputError: `signature.json` is there but is not a JSON object, or a key holds another type
            than it should.
    """
    file = Path(directory) / MANIFEST_FILE
    if not file.is_file():
        return Manifest()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is not JSON ({error}); export the model again.") from None
    if not isinstance(content, dict):
        raise InputError(f"{file} should hold a JSON object; export the model again.")
    for name, kind in _KINDS.items():
        if not isinstance(content.get(name) or kind(), kind):
            raise InputError(
                f"{file}: {name!r} should be of the type {kind.__name__}; export the model again."
            )
    example = content.get("example") or {}
    return Manifest(
        task=content.get("task") or "",
        labels=tuple(content.get("labels") or ()),
        signatures=content.get("signatures") or {},
        example_request=example.get("request") or {},
        example_response=example.get("response") or {},
        versions=content.get("versions") or {},
        limits=content.get("limits") or {},
        dtype=content.get("dtype") or "",
        weights_sha256=(content.get("weights") or {}).get("sha256") or "",
        evaluation=content.get("evaluation") or {},
        heads=content.get("heads") or {},
        content=content,
    )
