"""Write a task for LiteRT: a folder of `model.tflite`, its tokenizer and its contract.

Heads have one signature, `tokens`; a `CausalLM` has `prefill` and `decode`, with the cache of keys
and values outside: it goes in whole, and what is new in it comes out (a copy of all of it for each
token would cost as much as the token).

Axes: R rows, T tokens, L layers, K key-value heads, S cache length, D head size, E model width,
V vocabulary.
"""

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from llama_keras.atomic import new_directory
from llama_keras.errors import InputError
from llama_keras.layers.masking import additive
from llama_keras.models import LlamaBackbone
from llama_keras.serving.litert import (
    convert,
    decode_specs,
    decode_step,
    plain_backbone,
    with_plain_norms,
)
from llama_keras.serving.litert_model import LiteRTModel, check_installed
from llama_keras.serving.manifest import MANIFEST_FILE
from llama_keras.serving.signature_parts import cleaning_steps
from llama_keras.text.tokenizer_json import tokenizer_json

MODEL_FILE = "model.tflite"
DTYPES = {"float32": "none", "int8": "int8"}
PACKAGES = ("llama-keras", "tensorflow", "keras", "ai-edge-litert")
# task class name -> its name in the manifest, and what its head's output is called
HEADS = {
    "Embedder": ("embedding", "embedding"),
    "MaskedLM": ("masked_lm", "logits"),
    "QuestionAnswerer": ("question_answering", "logits"),
    "TextClassifier": ("text_classification", "logits"),
    "TokenClassifier": ("token_classification", "logits"),
}
GENERATOR = "CausalLM"
# task class name -> tokens of a row that are not the text's: separators, a new token
BESIDE_TEXT = {GENERATOR: 1, "QuestionAnswerer": 2}
_EXAMPLE = "A warm, funny and moving film."


def export_litert(
    model,
    path: str | Path,
    *,
    dtype: str = "float32",
    max_length: int | None = None,
    rows: int = 1,
) -> Path:
    """Writes a task as a folder that LiteRT runs without TensorFlow and without our code.

    `model.tflite` has the signature `tokens`: `token_ids`, `padding_mask` int32 `(R, T)`, any T, →
    `logits` or `embedding` float32, as the SavedModel's `tokens` gives them. Of a `CausalLM` it has
    `prefill`: `token_ids` int32 `(1, T)` → `logits` `(1, V)` of the last token, and `rows`
    `(2 L, K, T, D)`, key and value of each layer; and `decode`, as `models.litert` tells, with
    `token_ids` int32 `(1, 1)` in place of their vector.

    Beside it lie the tokenizer (`tokenizer.json`, or `tokenizer.model` of a SentencePiece model)
    and `signature.json`: labels, limits, an example with its true answer, versions, sizes. The
    folder appears under its name only when it is complete.

    Args:
        model: a task; LoRA updates are merged in.
        path: the folder, which must be new.
        dtype: `"float32"`, or `"int8"`: matrices in int8, dynamic range; a quarter of the size.
        max_length: tokens after which a text is cut; by default the task's own limit.
        rows: R; more than one takes texts together, padded to the longest.

    Returns:
        The folder.

    Raises:
        InputError: the task or a setting is not known, the folder exists, or LiteRT refuses it.
        MissingDependencyError: `ai-edge-litert` is not installed.
    """
    check_installed()
    kind = type(model).__name__
    if kind != GENERATOR and kind not in HEADS:
        raise InputError(f"LiteRT takes no {kind}; it takes {sorted([*HEADS, GENERATOR])}.")
    if dtype not in DTYPES:
        raise InputError(f"dtype={dtype!r} is not known; expected one of {list(DTYPES)}.")
    limit = _limit(model, kind, max_length)
    if rows < 1 or (kind == GENERATOR and rows != 1):
        raise InputError(f"rows={rows} must be 1" + (" or more." if kind in HEADS else "."))
    model = _plain(model)
    if kind == GENERATOR:
        backbone = with_plain_norms(model.backbone)
        weights = backbone.weights
        functions, about = _generator(backbone, model.tokenizer)
    else:
        weights = model.weights
        functions, about = _head(model, kind, rows)
    with new_directory(path) as folder:
        file = folder / MODEL_FILE
        convert(functions, file, weights=weights, quantization=DTYPES[dtype])  # pyright: ignore
        record = {
            "format": "litert",
            "dtype": dtype,
            "file": MODEL_FILE,
            "bytes": file.stat().st_size,
            **about,
            "max_length": limit,
            "rows": rows,
            "pad_id": model.tokenizer.pad_id,
            "end_ids": list(model.tokenizer.end_ids),
            "cleaning": list(cleaning_steps(model)),
            "tokenizer": _write_tokenizer(model.tokenizer.spec, folder),
            "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        }
        record["example"] = _example(folder, model, kind, record)
        text = json.dumps(record, indent=2, ensure_ascii=False)
        (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")
    return Path(path)


def _limit(model, kind: str, max_length: int | None) -> int:
    own = model.max_sequence_length
    if kind == GENERATOR:  # there it is about training; prompt and answer fill the context
        own = model.backbone.config.max_sequence_length
    if max_length is None:
        return own
    least = 1 + BESIDE_TEXT.get(kind, 0)
    if not least <= max_length <= own:
        raise InputError(f"max_length must lie in {least} … {own}; received {max_length}.")
    return max_length


def _plain(model):
    """Gives the task in float32 with LoRA merged; the given one where it is that."""
    backbone = plain_backbone(model.backbone)
    if backbone is model.backbone:
        return model
    parts = {"backbone": backbone, "tokenizer": model.tokenizer}
    plain = type(model)(**{**model.get_config(), **parts})
    for new, old in zip(_head_weights(plain), _head_weights(model), strict=True):
        new.assign(keras.ops.cast(old, "float32"))
    return plain


def _head_weights(model) -> list:
    inside = {id(variable) for variable in model.backbone.variables}
    return [variable for variable in model.weights if id(variable) not in inside]


def _head(model, kind: str, rows: int) -> tuple[dict[str, Callable], dict[str, Any]]:
    task, output = HEADS[kind]
    names = ("token_ids", "padding_mask")
    specs = [tf.TensorSpec((rows, None), tf.int32, name=name) for name in names]

    @tf.function(input_signature=specs, autograph=False)
    def tokens(token_ids, padding_mask):
        features = {"token_ids": token_ids, "padding_mask": padding_mask}
        return {output: tf.cast(model(features, training=False), tf.float32)}

    about: dict[str, Any] = {"task": task, "labels": list(map(str, getattr(model, "labels", ())))}
    if kind == "TextClassifier":
        about |= {"multi_label": model.multi_label, "pairs": model.pairs}
        about |= {"threshold": model.threshold} if model.multi_label else {}
    if kind == "TokenClassifier":
        # Tags are decoded outside: a small table, and every language has a loop.
        chain = model.chain.scores()
        about |= {"tags": list(model.tags), "tagged_token": model.tagged_token}
        about["chain"] = {name: np.asarray(part).tolist() for name, part in chain._asdict().items()}
    if kind == "QuestionAnswerer":
        about["separator_id"] = model.separator_id
    if kind == "MaskedLM":
        about["mask_id"] = model.mask_tokens.mask_id
        about["shift"] = model.objective.shift  # a token is told by the logits so far before it
    return {"tokens": tokens.get_concrete_function()}, about


def _generator(backbone, tokenizer) -> tuple[dict[str, Callable], dict[str, Any]]:
    config = backbone.config
    decode = tf.function(decode_step(backbone, embeds=True), autograph=False)
    prefill = tf.function(_prefill(backbone), autograph=False)
    prompt = tf.TensorSpec((1, None), "int32", "token_ids")
    functions = {
        # The main function of the file, on which `models.litert.LiteRTDecoder` runs.
        "decode": decode.get_concrete_function(**decode_specs(backbone, embeds=True)),
        "prefill": prefill.get_concrete_function(token_ids=prompt),
    }
    cache = [config.num_layers, config.num_key_value_heads, config.head_dim]
    about = {
        "task": "generation",
        "labels": [],
        "cache": dict(zip(("layers", "heads", "head_dim"), cache, strict=True)),
        "chat_template": tokenizer.chat_template,
    }
    return functions, about


def _prefill(backbone: LlamaBackbone) -> Callable:
    def prefill(token_ids):
        steps = tf.range(tf.shape(token_ids)[1])
        seen = steps[:, None] >= steps[None]
        # The cache is as long as the prompt: nothing is left of this one.
        hidden, cache = backbone.call_with_cache(
            token_ids,
            cache=backbone.init_cache(1, 0),
            cache_index=0,
            positions=steps[None],
            bias=additive(seen[None, None], backbone.compute_dtype),
        )
        logits = backbone.token_embedding(hidden[:, -1], reverse=True)
        return {"logits": logits, "rows": tf.concat([x for pair in cache for x in pair], axis=0)}

    return prefill


def _write_tokenizer(spec, folder: Path) -> dict[str, Any]:
    rules = {"add_bos": spec.add_bos, "add_eos": spec.add_eos}
    rules |= {"bos_id": spec.bos_id, "eos_id": spec.eos_id}
    rules["user_tokens"] = dict(spec.user_tokens)
    if spec.kind == "byte_pair":
        name = "tokenizer.json"
        text = json.dumps(tokenizer_json(spec), ensure_ascii=False)
        (folder / name).write_text(text, encoding="utf-8")
    else:
        name = "tokenizer.model"
        (folder / name).write_bytes(spec.sentence_piece or b"")
    return {"file": name, "kind": spec.kind, **rules}


def _example(folder: Path, model, kind: str, record: dict[str, Any]) -> dict[str, Any]:
    """Gives ids and what the written file answers to them."""
    (folder / MANIFEST_FILE).write_text(json.dumps(record), encoding="utf-8")
    ids = model.tokenizer.encode(_EXAMPLE)[: record["max_length"] - BESIDE_TEXT.get(kind, 0)]
    if kind == "QuestionAnswerer":
        separator = model.separator_id
        ids = [*ids[:4], separator, *ids[4:], separator]
    runner = LiteRTModel(folder)
    if kind == GENERATOR:
        return {"token_ids": ids, "new_token_ids": runner.generate(ids, max_new_tokens=8)}
    (output,) = runner.run([ids])
    return {"text": _EXAMPLE, "token_ids": ids, HEADS[kind][1]: np.round(output, 6).tolist()}
