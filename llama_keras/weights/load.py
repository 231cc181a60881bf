"""Fills a backbone from a checkpoint, tensor by tensor, every variable exactly once."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from llama_keras.errors import InputError
from llama_keras.weights.names import (
    WeightName,
    checkpoint_shape,
    from_gguf,
    from_hugging_face,
    variable,
    weight_names,
)
from llama_keras.weights.presets import Source, SourceKind, resolve, verify

SHOWN = 4  # names listed in an error before "and N more"


@dataclass(frozen=True)
class _Format:
    """How a kind of checkpoint is opened, names its tensors, and lays them out."""

    open: Callable[[Path], Any]
    name: Callable[[WeightName], str]
    orient: Callable[[WeightName, np.ndarray, Any], np.ndarray]
    ignored: re.Pattern[str]
    """Tensors that carry no weight."""


def _open_gguf(path: Path) -> Any:
    from llama_keras.weights.gguf import GGUFFile

    return GGUFFile(path)


def _open_safetensors(path: Path) -> Any:
    from llama_keras.weights.safetensors import open_checkpoint

    return open_checkpoint(path)


_SAFETENSORS = _Format(
    open=_open_safetensors,
    name=lambda row: row.hugging_face,
    orient=from_hugging_face,
    # Computed from the configuration; early Llama files stored them.
    ignored=re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq"),
)
_FORMATS: dict[SourceKind, _Format] = {
    "gguf": _Format(
        open=_open_gguf,
        name=lambda row: row.gguf,
        orient=from_gguf,
        # rope_freqs: part of the configuration (gguf_config). The other: stored by old converters.
        ignored=re.compile(r"rope_freqs\.weight|blk\.\d+\.attn_rot_embd"),
    ),
    "huggingface": _SAFETENSORS,
    "keras": _SAFETENSORS,
}


def load_weights(backbone: Any, source: Source | str | Path) -> None:
    """Assigns every weight of a backbone from a checkpoint.

    Names and shapes are compared first, so that a checkpoint that is refused leaves the backbone
    as it was; then one tensor at a time is read, converted to the variable's dtype and assigned.

    Args:
        backbone: A built `LlamaBackbone`, without LoRA and not quantized.
        source: A `Source` or what `resolve` takes. One of random weights assigns nothing.

    Raises:
        InputError: A tensor is missing, unexpected or of another shape, or the file is damaged.
    """
    if not isinstance(source, Source):
        source = resolve(source)
    if source.kind == "random":
        return
    assert source.path is not None
    verify(source)
    form = _FORMATS[source.kind]
    checkpoint = form.open(source.path)
    rows = weight_names(backbone.config)
    targets = [(row, form.name(row), variable(backbone, row.path)) for row in rows]
    _check_variables(backbone, [target for _, _, target in targets])
    _check_tensors(checkpoint, targets, form.ignored)
    for row, name, target in targets:
        values = form.orient(row, checkpoint.read(name), backbone.config)
        target.assign(np.asarray(values, dtype=_numpy_dtype(target.dtype), order="C"))


def _numpy_dtype(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def _check_variables(backbone: Any, targets: list[Any]) -> None:
    known = {id(target) for target in targets}
    extra = [weight.path for weight in backbone.weights if id(weight) not in known]
    if extra:
        raise InputError(
            f"The backbone has weights that no checkpoint holds: {_some(extra)}. Load the "
            "checkpoint before `enable_lora` and other changes."
        )


def _check_tensors(
    checkpoint: Any, targets: list[tuple[WeightName, str, Any]], ignored: re.Pattern[str]
) -> None:
    path, tensors = checkpoint.path, checkpoint.tensors
    names = {name for _, name, _ in targets}
    missing = [name for name in sorted(names) if name not in tensors]
    if missing:
        raise InputError(
            f"The checkpoint '{path}' lacks {_some(missing)}, which its configuration (or the "
            "arguments that replace it) asks for."
        )
    unexpected = [n for n in sorted(tensors) if n not in names and not ignored.fullmatch(n)]
    unexpected = [n for n in unexpected if not _is_copy_of_embedding(checkpoint, n)]
    if unexpected:
        raise InputError(
            f"The checkpoint '{path}' holds {_some(unexpected)}, for which the model has no place. "
            "Its configuration does not describe it, or it is another architecture."
        )
    for row, name, target in targets:
        expected = checkpoint_shape(row, tuple(target.shape))
        if tensors[name].shape != expected:
            raise InputError(
                f"The checkpoint '{path}' has '{name}' of shape {tensors[name].shape}, but the "
                f"configuration asks for {expected}."
            )


def _is_copy_of_embedding(checkpoint: Any, name: str) -> bool:
    # Some tied checkpoints store the head as well; a head that differs is not tied.
    embedding = {"lm_head.weight": "model.embed_tokens.weight"}.get(name)
    if embedding is None or embedding not in checkpoint.tensors:
        return False
    return np.array_equal(checkpoint.read(name), checkpoint.read(embedding))


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(f"'{name}'" for name in listed[:SHOWN]) + more
