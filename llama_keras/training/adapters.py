"""LoRA adapters of a task: saved as small files, loaded into another copy of it, merged."""

import contextlib
import gc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from llama_keras.errors import InputError
from llama_keras.training.adapter_checks import (
    Adapted,
    check_adapter,
    is_update,
    learned_settings,
    made_on,
    projections,
    some,
)
from llama_keras.training.fine_tuning import Lora
from llama_keras.weights.adapters import Adapter, LowRank, read_adapter, write_adapter


def save_adapter(task: Adapted, path: str | Path) -> None:
    """Writes what LoRA has learned: the updates and the head; see `weights.adapters`.

    Args:
        task: A task whose backbone has LoRA updates.
        path: A name ending in .safetensors, or a folder to make, which PEFT reads too.

    Raises:
        InputError: The backbone has no updates, or some that the format cannot hold.
    """
    layers = _adapted_projections(task.backbone)
    scales = {(layer.lora_rank, layer.lora_alpha) for layer in layers.values()}
    if len(scales) > 1:
        raise InputError(
            f"The updates differ in (rank, alpha): {sorted(scales)}; an adapter holds one of each. "
            "Call merge_lora and save the whole model instead."
        )
    ((rank, alpha),) = scales
    beside = {weight.path: weight for weight in task.trainable_weights if not is_update(weight)}
    inner = sorted({weight.path for weight in task.backbone.weights} & set(beside))
    if inner and Path(path).suffix != ".safetensors":
        raise InputError(
            f"Weights of the backbone have learned beside the updates ({some(inner)}), for which "
            "PEFT's layout has no place. Save to a name ending in .safetensors."
        )
    updates = {
        module: LowRank(a=_values(layer.lora_kernel_a).T, b=_values(layer.lora_kernel_b).T)
        for module, layer in layers.items()
    }
    adapter = Adapter(
        rank=rank,
        alpha=float(alpha),
        updates=updates,
        beside={name: _values(weight) for name, weight in beside.items()},
        made=made_on(task, leave_out=beside),
    )
    write_adapter(adapter, path)


def load_adapter(task: Adapted, path: str | Path, *, check_base: bool = True) -> None:
    """Gives a task the updates and the head of an adapter; everything is checked first.

    The strategy becomes `lora` with the adapter's rank and targets, so that `fit` goes on with it.
    The head's threshold, where it has one, comes along.

    Args:
        task: A task on the base model that the adapter was made on.
        path: What `save_adapter` or PEFT's `save_pretrained` wrote.
        check_base: Whether the base weights must be the same; PEFT notes nothing to compare.

    Raises:
        InputError: The adapter is missing, damaged, or made for another model or task.
    """
    adapter = read_adapter(path)
    check_adapter(task, adapter, path, check_base=check_base)
    found = projections(task.backbone)
    layers = {module: found[module] for module in adapter.updates}
    if not any(layer.lora_enabled for layer in layers.values()):
        _enable(task.backbone, layers.values(), adapter)
    for module, layer in layers.items():
        layer.lora_alpha = adapter.alpha
        layer.lora_kernel_a.assign(adapter.updates[module].a.T)
        layer.lora_kernel_b.assign(adapter.updates[module].b.T)
    variables = {weight.path: weight for weight in task.weights}
    for name, values in adapter.beside.items():
        variables[name].assign(values)
    for name, value in learned_settings(task, adapter.made).items():
        setattr(task, name, value)
    _continue_with_lora(task, layers.values(), adapter.rank)
    renew_optimizer(task)


def merge_lora(task: Adapted) -> None:
    """Adds all updates to the weights that they adapt and removes them.

    All weights can learn then, and the strategy stays what it was: after `lora`, a further `fit`
    starts new updates on top of the merged weights.

    Raises:
        InputError: There are no updates, or their weights are quantized.
    """
    layers = _adapted_layers(task.backbone)
    _check_not_quantized(layers)
    with _one_collection():
        for layer in layers:
            _merge(layer)
    task.backbone._lora_enabled_layers, task.backbone._lora_rank = [], None  # KerasHub's notes
    for layer in task.backbone._flatten_layers():
        layer.trainable = False  # setting what is set already would not reach the variables
        layer.trainable = True
    renew_optimizer(task)


@contextlib.contextmanager
def merged_lora(task) -> Iterator[None]:
    """Has a task read merged weights while the block runs; what is traced in it has no updates.

    The task is as it was afterwards. The updates stay among its weights: `weights_without_lora`.

    Args:
        task: any task, with or without updates.

    Raises:
        InputError: weights with updates are quantized.
    """
    layers = [layer for layer in _layers(task.backbone) if getattr(layer, "lora_enabled", False)]
    _check_not_quantized(layers)
    replaced = []
    try:
        for layer in layers:
            name = _adapted_name(layer)
            values = ops.convert_to_numpy(_merged(layer, name))
            layer.lora_enabled = False
            weight = getattr(layer, name)
            replaced.append((layer, weight, weight.value))
            # Keras has no way to say this; a graph reads what stands here when it is traced.
            weight._value = type(weight)(values, dtype=weight.dtype, name=weight.name).value
        yield
    finally:
        for layer, weight, value in replaced:
            weight._value, layer.lora_enabled = value, True


def weights_without_lora(model) -> list:
    """Gives the weights of a task or backbone that are there once LoRA's updates are merged."""
    return [weight for weight in model.weights if not is_update(weight)]


def weights_read(layer) -> list:
    """Gives the weights that a layer or backbone reads: no updates while those are merged."""
    live = any(getattr(inner, "lora_enabled", False) for inner in layer._flatten_layers())
    return list(layer.weights) if live else weights_without_lora(layer)


def renew_optimizer(task: Adapted) -> None:
    """Replaces an optimizer in use by a new one of the same settings: it knows the old weights."""
    old = getattr(task, "optimizer", None)
    if old is None or not old.built:
        return
    with task.scope():
        new = type(old).from_config(old.get_config())
    pairs = [(old, new)]
    if hasattr(old, "inner_optimizer"):  # of loss scaling
        pairs.append((old.inner_optimizer, new.inner_optimizer))
    for before, after in pairs:
        # Keras leaves what is not decayed out of the configuration.
        if pattern := getattr(before, "_exclude_from_weight_decay_pattern", None):
            after.exclude_from_weight_decay(var_names=[pattern.pattern])
    task.optimizer = new


def _layers(backbone) -> list:
    return list(backbone._flatten_layers(include_self=False))


def _adapted_layers(backbone) -> list:
    adapted = [layer for layer in _layers(backbone) if getattr(layer, "lora_enabled", False)]
    if not adapted:
        raise InputError(
            "The backbone has no LoRA updates; fit with strategy='lora', or load an adapter, first."
        )
    return adapted


def _adapted_projections(backbone) -> dict[str, Any]:
    adapted = _adapted_layers(backbone)
    found = {name: layer for name, layer in projections(backbone).items() if layer.lora_enabled}
    known = {id(layer) for layer in found.values()}
    if others := [layer.path for layer in adapted if id(layer) not in known]:
        raise InputError(
            f"An adapter holds updates of projections only, not those of {some(others)}. Call "
            "merge_lora and save the whole model instead."
        )
    return found


def _check_not_quantized(layers: Iterable) -> None:
    if quantized := [layer.path for layer in layers if layer.quantization_mode]:
        raise InputError(
            f"The weights of {some(quantized)} are quantized and would lose the updates to "
            "rounding. Load the model unquantized, load the adapter, merge, then quantize."
        )


def _adapted_name(layer) -> str:
    return "kernel" if hasattr(layer, "lora_kernel_a") else "embeddings"


def _merged(layer, name: str):
    """Gives the weight that an update adapts, with the update, in the weight's dtype."""
    a, b = (getattr(layer, f"lora_{name}_{side}") for side in "ab")
    update = layer.lora_alpha / layer.lora_rank * ops.matmul(a, b)
    weight = getattr(layer, f"_{name}")  # the variable; without the underscore it is the sum
    return ops.cast(ops.cast(weight, "float32") + update, weight.dtype)


def _merge(layer) -> None:
    name = _adapted_name(layer)
    values = _merged(layer, name)
    layer.lora_enabled, layer.lora_rank, layer.lora_alpha = False, None, None
    getattr(layer, name).assign(values)  # the variable, now that LoRA is off
    for side in "ab":
        delattr(layer, f"lora_{name}_{side}")


@contextlib.contextmanager
def _one_collection() -> Iterator[None]:
    """Spares the garbage collections, one for each deleted variable, that Keras asks for.

    For SmolLM2-135M they take two minutes, spent on objects that were there before.
    """
    frozen = gc.get_freeze_count() > 0  # by somebody who wants it so
    if not frozen:
        gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()
        gc.collect()


def _enable(backbone, layers: Iterable, adapter: Adapter) -> None:
    backbone.enable_lora(adapter.rank, target_layer_names=[])  # freezes everything
    for layer in layers:
        layer.trainable = True
        layer.enable_lora(adapter.rank, lora_alpha=adapter.alpha)
        for weight in layer.weights:  # a bias learns only where it did
            weight.trainable = is_update(weight) or weight.path in adapter.beside
    # KerasHub counts the layers with weights.
    counted = [layer for layer in backbone._flatten_layers(include_self=False) if layer.weights]
    backbone._lora_enabled_layers = [
        index for index, layer in enumerate(counted) if getattr(layer, "lora_enabled", False)
    ]


def _continue_with_lora(task: Adapted, layers: Iterable, rank: int) -> None:
    settings = {"rank": rank, "targets": tuple(dict.fromkeys(layer.name for layer in layers))}
    if isinstance(task.strategy, Lora):
        settings["learning_rate"] = task.strategy.learning_rate
    task.strategy = Lora(**settings)


def _values(weight) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(weight)).astype("float32")
