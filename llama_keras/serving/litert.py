"""Functions as LiteRT files; a causal backbone's decoding step, once for each set of weights."""

import hashlib
import importlib.metadata
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import keras
import tensorflow as tf

from llama_keras.atomic import new_file
from llama_keras.errors import InputError
from llama_keras.layers.masking import additive
from llama_keras.models import LlamaBackbone

Quantization = Literal["int8", "none"]
QUANTIZATIONS: dict[str, list] = {"int8": [tf.lite.Optimize.DEFAULT], "none": []}
# Part of the cached file's name: raise it when the same weights shall give another file.
_FORMAT = 1


def cached_decoder(backbone: LlamaBackbone, *, quantization: Quantization = "int8") -> Path:
    """Gives the LiteRT file of a backbone's weights, written the first time they are seen.

    Files lie in `$LLAMA_KERAS_CACHE/litert`, by default `~/.cache/llama-keras/litert`; they may be
    removed at any time.

    Args:
        backbone: a causal `LlamaBackbone`.
        quantization: see `convert_decoder`.

    Raises:
        InputError: see `convert_decoder`.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("LLAMA_KERAS_CACHE") or Path(base) / "llama-keras") / "litert"
    path = folder / f"{_fingerprint(backbone)}-{quantization}.tflite"
    if not path.is_file():
        print(f"Writing a LiteRT file for these weights, once: {path}", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        convert_decoder(backbone, path, quantization=quantization)
    return path


def convert_decoder(
    backbone: LlamaBackbone, path: str | Path, *, quantization: Quantization = "int8"
) -> None:
    """Writes one decoding step of one row; inputs and outputs are those of `models.litert`.

    Args:
        backbone: a causal `LlamaBackbone`; LoRA updates are merged in.
        path: the `.tflite` file; an earlier one is replaced.
        quantization: `"int8"` keeps matrices as int8 with one scale for each output, and turns
            what they are multiplied with into int8 as it comes (dynamic range); a quarter of the
            size. `"none"` keeps float32.

    Raises:
        InputError: the backbone cannot decode this way, or the converter refuses it.
    """
    if quantization not in QUANTIZATIONS:
        raise InputError(
            f"quantization={quantization!r} is not known; expected one of {list(QUANTIZATIONS)}."
        )
    plain = plain_backbone(backbone)
    step = tf.function(decode_step(plain), autograph=False)
    convert(
        {"decode": step.get_concrete_function(**decode_specs(plain))},
        path,
        weights=plain.weights,
        quantization=quantization,
    )


def convert(
    functions: Mapping[str, Callable],
    path: str | Path,
    *,
    weights: Sequence,
    quantization: Quantization,
) -> None:
    """Writes functions as the signatures of one LiteRT file.

    Args:
        functions: name to concrete function; the first is the file's main one.
        path: the `.tflite` file; an earlier one is replaced.
        weights: the Keras variables that they read.
        quantization: see `convert_decoder`.

    Raises:
        InputError: the converter refuses a function.
    """
    # Variables that come through a SavedModel are kept; those of a bare function were lost.
    with tempfile.TemporaryDirectory() as folder, new_file(path) as temporary:
        module = tf.Module()
        module.parameters = [variable.value for variable in weights]  # pyright: ignore
        tf.saved_model.save(module, folder, signatures=dict(functions))
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(functions))
        converter.optimizations = QUANTIZATIONS[quantization]
        try:
            content = converter.convert()
        except Exception as error:  # the converter has error classes of its own, all private
            raise InputError(f"LiteRT cannot take this model: {error}") from error
        temporary.write_bytes(content)


def decode_step(backbone: LlamaBackbone, *, embeds: bool = False) -> Callable:
    """Gives the function of one new token; see `models.litert` for what it takes and gives.

    Args:
        backbone: causal, float32.
        embeds: whether it takes `token_ids` int32 `(1, 1)` in place of their vector, `hidden`.
    """
    layers = range(backbone.config.num_layers)

    def step(index, padding, **inputs):
        columns = tf.range(tf.shape(inputs["key_0"])[2])
        seen = tf.logical_and(columns <= index, columns >= padding)
        if embeds:
            inputs["hidden"] = backbone.token_embedding(inputs["token_ids"])
        hidden, cache = backbone.vectors_with_cache(
            inputs["hidden"],
            cache=[(inputs[f"key_{layer}"], inputs[f"value_{layer}"]) for layer in layers],
            cache_index=index,
            positions=(index - padding)[None, None],
            bias=additive(seen[None, None, None], backbone.compute_dtype),
        )
        rows = [x[:, :, index] for entry in cache for x in entry]
        logits = backbone.token_embedding(hidden[:, -1], reverse=True)
        return {"logits": logits, "rows": tf.concat(rows, axis=0)}

    return step


def decode_specs(backbone: LlamaBackbone, *, embeds: bool = False) -> dict[str, tf.TensorSpec]:
    """Gives the inputs of `decode_step`; the cache has any length."""
    config = backbone.config
    entry = (1, config.num_key_value_heads, None, config.head_dim)
    cache = {
        f"{part}_{layer}": tf.TensorSpec(entry, "float32", f"{part}_{layer}")
        for layer in range(config.num_layers)
        for part in ("key", "value")
    }
    name = "token_ids" if embeds else "hidden"
    token = (
        tf.TensorSpec((1, 1), "int32", name)
        if embeds
        else tf.TensorSpec((1, 1, config.hidden_dim), "float32", name)
    )
    return {
        name: token,
        "index": tf.TensorSpec((), "int32", "index"),
        "padding": tf.TensorSpec((), "int32", "padding"),
        **cache,
    }


def plain_backbone(backbone: LlamaBackbone) -> LlamaBackbone:
    """Gives a float32 backbone of the same weights, LoRA merged; the given one where it is that."""
    layers = backbone._flatten_layers()
    if any(layer.quantization_mode for layer in layers):
        raise InputError(
            "This backbone is quantized already; LiteRT quantizes by itself. Load it unquantized."
        )
    merged = {layer.path: layer for layer in layers if getattr(layer, "lora_enabled", False)}
    if not merged and backbone.compute_dtype == backbone.variable_dtype == "float32":
        return backbone
    values = {variable.path: variable for variable in backbone.weights}
    for path, layer in merged.items():
        name = "kernel" if hasattr(layer, "kernel") else "embeddings"
        values[f"{path}/{name}"] = getattr(layer, name)
    plain = LlamaBackbone.from_config({**backbone.get_config(), "dtype": "float32"})
    for variable in plain.weights:
        variable.assign(values[variable.path])
    return plain


def with_plain_norms(backbone: LlamaBackbone) -> LlamaBackbone:
    """Gives a copy whose blocks' norms scale by one: their scales are in the matrices behind them.

    The converter does so where a step has one token, and not for a whole prompt; the matrices of
    the two would differ then, and be in a file twice.

    Args:
        backbone: float32, without LoRA; see `plain_backbone`.
    """
    folded = LlamaBackbone.from_config(backbone.get_config())
    for new, old in zip(folded.weights, backbone.weights, strict=True):
        new.assign(old)
    for block in folded.transformer_layers:
        attention, network = block.attention, block.feed_forward
        behind = (attention.query_dense, attention.key_dense, attention.value_dense)
        inner = [getattr(network, n) for n in ("gate_dense", "up_dense") if hasattr(network, n)]
        for norm, layers in ((block.attention_norm, behind), (block.feed_forward_norm, inner)):
            scale = keras.ops.convert_to_tensor(norm.scale)
            for dense in layers:
                dense.kernel.assign(dense.kernel * scale[:, None])
            norm.scale.assign(keras.ops.ones_like(scale))
    return folded


def _fingerprint(backbone: LlamaBackbone) -> str:
    """Gives a name for the weights, the shape and the converter: the start of a SHA-256."""
    about = {
        "format": _FORMAT,
        "tensorflow": importlib.metadata.version("tensorflow"),
        "config": backbone.config.to_dict(),
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
    for variable in backbone.weights:
        digest.update(f"{variable.path} {variable.dtype} {variable.shape}".encode())
        digest.update(keras.ops.convert_to_numpy(variable).reshape(-1).view("uint8").data)
    return digest.hexdigest()[:32]
