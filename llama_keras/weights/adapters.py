"""LoRA adapters on disk: one .safetensors file, or a folder laid out as Hugging Face's PEFT does.

Axes: I inputs and O outputs of a projection, R rank.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from llama_keras.atomic import new_directory, new_file
from llama_keras.errors import InputError
from llama_keras.weights.peft import WEIGHTS_FILE, peft_config, peft_scale, read_peft_config
from llama_keras.weights.safetensors_file import SafetensorsFile, write_safetensors

FORMAT = 1
NOTE = "llama_keras_adapter"  # key of the safetensors header
CONFIG_FILE = "adapter_config.json"
BESIDE_FILE = "beside.safetensors"  # PEFT's own file holds low-rank matrices only
PICKLES = (".bin", ".pt", ".pth", ".pkl")
_BESIDE = "beside."
# An adapter made on a bare LlamaModel has one "model." less.
_UPDATE = re.compile(r"base_model\.model\.(?:model\.)?(layers\.\d+\.[\w.]+)\.lora_([AB])\.weight")


@dataclass(frozen=True)
class LowRank:
    """What is added to one projection: `alpha / R · b a`."""

    a: np.ndarray
    """float32 `(R, I)`."""
    b: np.ndarray
    """float32 `(O, R)`."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """How an adapter was made."""

    task: str
    """Class name of the task."""
    settings: dict[str, Any]
    """What gives the head's weights their meaning, such as its labels."""
    backbone: dict[str, Any]
    """Arguments of the `LlamaBackbone`."""
    fingerprint: str
    """Of the weights that did not learn."""


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """What fine-tuning by LoRA has learned."""

    rank: int
    """R."""
    alpha: float
    updates: dict[str, LowRank]
    """By Hugging Face's name of the projection, e.g. "model.layers.0.self_attn.q_proj"."""
    beside: dict[str, np.ndarray] = field(default_factory=dict)
    """float32, by path: weights that learned besides, such as the head's."""
    made: Made | None = None
    """None for one that PEFT made."""


def write_adapter(adapter: Adapter, path: str | Path) -> None:
    """Writes an adapter; it appears under its name only when it is complete.

    Args:
        adapter: What is to be written; its `made` is set.
        path: A name ending in .safetensors, replaced where it exists; else a folder to make, with
            adapter_config.json and adapter_model.safetensors for PEFT, and beside.safetensors for
            the head.

    Raises:
        InputError: The folder exists already, or the name is that of a pickle.
    """
    path, made = Path(path), adapter.made
    if made is None:
        raise ValueError("An adapter is written with the note of how it was made.")
    _refuse_pickle(path)
    updates = {}
    for module, update in adapter.updates.items():
        updates[f"base_model.model.{module}.lora_A.weight"] = update.a
        updates[f"base_model.model.{module}.lora_B.weight"] = update.b
    beside = {f"{_BESIDE}{name}": values for name, values in adapter.beside.items()}
    metadata = {NOTE: json.dumps(_note(adapter, made))}
    if path.suffix == ".safetensors":
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as temporary:
            _write(temporary, updates | beside, metadata)
        return
    with new_directory(path) as folder:
        config = peft_config(
            rank=adapter.rank,
            alpha=adapter.alpha,
            modules=adapter.updates,
            num_layers=made.backbone["num_layers"],
            task=made.task,
        )
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        _write(folder / WEIGHTS_FILE, updates, metadata)
        if beside:
            _write(folder / BESIDE_FILE, beside, {})


def _note(adapter: Adapter, made: Made) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "rank": adapter.rank,
        "alpha": adapter.alpha,
        "targets": sorted({module.split(".")[-1] for module in adapter.updates}),
        "beside": sorted(adapter.beside),
        **vars(made),
    }


def _write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    shapes = {name: values.shape for name, values in tensors.items()}
    write_safetensors(path, tensors.items(), shapes, dtype="float32", metadata=metadata)


def _refuse_pickle(path: Path) -> None:
    if path.suffix in PICKLES:
        raise InputError(
            f"'{path}' is a pickle by its name, which can run code when opened; adapters are kept "
            "in .safetensors files. PEFT writes one with save_pretrained(safe_serialization=True)."
        )


def read_adapter(path: str | Path) -> Adapter:
    """Gives what `write_adapter` or PEFT's `save_pretrained` wrote, checked.

    Args:
        path: A .safetensors file of ours, or a folder with adapter_config.json and
            adapter_model.safetensors.

    Raises:
        InputError: A file is missing, damaged, a pickle, or has features that are not understood.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    _refuse_pickle(path)
    file = SafetensorsFile(path)
    note = _read_note(file)
    if note is None:
        raise InputError(
            f"'{path}' does not say how its matrices are scaled: it was not written by "
            f"save_adapter. For one from PEFT give the folder, which holds {CONFIG_FILE} too."
        )
    tensors = _read_tensors(file)
    scale = {"rank": note["rank"], "alpha": note["alpha"]}
    return _adapter(path, updates=tensors, beside=tensors, note=note, **scale)


def _read_folder(folder: Path) -> Adapter:
    file, config = folder / WEIGHTS_FILE, folder / CONFIG_FILE
    if not file.is_file():
        pickled = [name.name for name in sorted(folder.glob("*")) if name.suffix in PICKLES]
        _refuse_pickle(folder / pickled[0] if pickled else file)
        raise InputError(f"'{folder}' has no {WEIGHTS_FILE}, so it holds no adapter.")
    rank, alpha = peft_scale(read_peft_config(config), path=config)
    weights = SafetensorsFile(file)
    note = _read_note(weights)
    tensors = _read_tensors(weights)
    beside = {}
    if note and note["beside"]:
        beside = _read_tensors(SafetensorsFile(folder / BESIDE_FILE))
    return _adapter(folder, updates=tensors, beside=beside, note=note, rank=rank, alpha=alpha)


def _read_tensors(file: SafetensorsFile) -> dict[str, np.ndarray]:
    return {name: file.read(name).astype("float32") for name in file.tensors}


_NOTED = {
    "rank": int,
    "alpha": (int, float),
    "beside": list,
    "task": str,
    "settings": dict,
    "backbone": dict,
    "fingerprint": str,
}


def _read_note(file: SafetensorsFile) -> dict[str, Any] | None:
    if NOTE not in file.metadata:
        return None
    try:
        note = json.loads(file.metadata[NOTE])
    except (ValueError, RecursionError):
        note = None
    if isinstance(note, dict) and note.get("format") != FORMAT:
        raise InputError(
            f"'{file.path}' has the adapter format {note.get('format')!r}; this version reads "
            f"{FORMAT}. Install the version of llama-keras that wrote it."
        )
    whole = isinstance(note, dict) and all(
        isinstance(note.get(key), kind) for key, kind in _NOTED.items()
    )
    if note is None or not whole or note["rank"] < 1 or not 0 < note["alpha"] < math.inf:
        raise InputError(f"'{file.path}' is damaged: its note {NOTE!r} is not whole. Save anew.")
    return note


def _adapter(path: Path, *, updates, beside, note, rank: int, alpha: float) -> Adapter:
    """Sorts tensors by what they are."""
    halves: dict[str, dict[str, np.ndarray]] = {}
    others = {}
    for name, values in {**updates, **beside}.items():
        match = _UPDATE.fullmatch(name)
        if match:
            halves.setdefault(f"model.{match[1]}", {})[match[2]] = values
        elif note and name.startswith(_BESIDE):
            others[name.removeprefix(_BESIDE)] = values
        else:
            raise InputError(
                f"'{path}' holds '{name}', which is no LoRA matrix of a Llama's projections; it "
                "is not loaded, since the model would not be what was trained."
            )
    if not halves:
        raise InputError(f"'{path}' holds no LoRA matrices.")
    if note and set(others) != set(note["beside"]):
        raise InputError(f"'{path}' should hold {note['beside']} too. Save the adapter anew.")
    return Adapter(
        rank=rank,
        alpha=alpha,
        updates={module: _update(path, module, pair, rank) for module, pair in halves.items()},
        beside=others,
        made=Made(**{key: note[key] for key in Made.__dataclass_fields__}) if note else None,
    )


def _update(path: Path, module: str, pair: Mapping[str, np.ndarray], rank: int) -> LowRank:
    if pair.keys() != {"A", "B"}:
        raise InputError(f"'{path}' has but lora_{[*pair][0]} of '{module}', not both matrices.")
    update = LowRank(a=pair["A"], b=pair["B"])
    if update.a.ndim != 2 or update.b.ndim != 2 or update.a.shape[0] != rank != update.b.shape[1]:
        raise InputError(
            f"'{path}' has matrices {update.a.shape} and {update.b.shape} for '{module}'; rank "
            f"{rank} asks for ({rank}, inputs) and (outputs, {rank})."
        )
    return update
