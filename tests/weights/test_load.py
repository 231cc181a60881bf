import json
import shutil
from typing import Any

import keras
import ml_dtypes
import numpy as np
import pytest

from llama_keras.errors import InputError
from llama_keras.models import LlamaBackbone
from llama_keras.weights.load import load_weights
from llama_keras.weights.names import unpermute, weight_names
from llama_keras.weights.presets import PRESETS, backbone_config, resolve
from llama_keras.weights.safetensors import open_checkpoint, write_weights
from llama_keras.weights.safetensors_file import SafetensorsFile, write_safetensors
from tests.golden.parity_table import CHECKPOINTS, load
from tests.weights.gguf_files import permute, write_llama


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(CHECKPOINTS / "tied_gqa", tmp_path / "model")


def rewrite(folder, change):
    """Rewrites the tensors of a checkpoint after `change(dict of arrays)`."""
    path = folder / "model.safetensors"
    file = SafetensorsFile(path)
    tensors = {name: np.array(file.read(name)) for name in file.tensors}
    change(tensors)
    shapes = {name: values.shape for name, values in tensors.items()}
    path.unlink()
    write_safetensors(path, tensors.items(), shapes, dtype="bfloat16")


def values_of(weight):
    return np.asarray(keras.ops.convert_to_numpy(weight))


def snapshot(backbone):
    return [values_of(weight) for weight in backbone.weights]


def test_every_weight_is_assigned_once(folder, monkeypatch):
    backbone = LlamaBackbone.from_preset(folder, load_weights=False)
    assigned = []
    kind = type(backbone.weights[0])
    plain = kind.assign

    def assign(self, value):
        assigned.append(id(self))
        return plain(self, value)

    monkeypatch.setattr(kind, "assign", assign)
    load_weights(backbone, folder)
    assert sorted(assigned) == sorted(id(weight) for weight in backbone.weights)
    assert len(weight_names(backbone.config)) == len(assigned)


def test_kernels_are_transposed_and_norms_kept(folder):
    backbone, checkpoint = load(folder), open_checkpoint(folder)
    layer = backbone.transformer_layers[1]
    for ours, theirs in (
        (layer.attention.key_dense.kernel, "self_attn.k_proj.weight"),
        (layer.feed_forward.down_dense.kernel, "mlp.down_proj.weight"),
        (layer.feed_forward_norm.scale, "post_attention_layernorm.weight"),
    ):
        expected = checkpoint.read(f"model.layers.1.{theirs}").astype("float32").T
        np.testing.assert_array_equal(values_of(ours), expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "mixed_bfloat16"])
def test_weights_take_the_dtype_of_the_backbone(dtype, folder):
    backbone: Any = LlamaBackbone.from_preset(folder, dtype=dtype)
    stored = {"bfloat16": ml_dtypes.bfloat16, "float16": "float16"}.get(dtype, "float32")
    expected = open_checkpoint(folder).read("model.embed_tokens.weight").astype(stored)
    np.testing.assert_array_equal(values_of(backbone.token_embedding.embeddings), expected)


def test_gguf_rows_are_put_back(tmp_path):
    path = write_llama(tmp_path / "x.gguf", "attention_bias")
    from_gguf, from_folder = load(path), load(CHECKPOINTS / "attention_bias")
    for a, b in zip(snapshot(from_gguf), snapshot(from_folder), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shape", [(24, 5), (24,)])
def test_unpermute_undoes_the_converter(shape):
    values = np.random.default_rng(0).normal(size=shape)
    permuted = permute(values, 3)
    assert not np.array_equal(permuted, values)
    np.testing.assert_array_equal(unpermute(permuted, num_heads=3), values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.norm.weight"), r"lacks 'model\.norm\.weight'"),
        (lambda t: t.update(score=np.zeros(3)), "holds 'score', for which the model has no place"),
        (
            lambda t: t.update({"model.norm.weight": np.zeros(31)}),
            r"'model\.norm\.weight' of shape \(31,\), but the configuration asks for \(32,\)",
        ),
        (
            lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] * 2}),
            r"holds 'lm_head\.weight'",
        ),
        (
            lambda t: [t.pop(name) for name in list(t) if ".mlp." in name],
            r"lacks 'model\.layers\.0\.mlp\.down_proj\.weight'.* and 2 more",
        ),
    ],
)
def test_a_refused_checkpoint_changes_nothing(change, message, folder):
    backbone = LlamaBackbone.from_preset(folder, load_weights=False)
    before = snapshot(backbone)
    rewrite(folder, change)
    with pytest.raises(InputError, match=message):
        load_weights(backbone, folder)
    for a, b in zip(before, snapshot(backbone), strict=True):
        np.testing.assert_array_equal(a, b)


def test_harmless_extra_tensors_are_accepted(folder):
    def change(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4)

    rewrite(folder, change)
    load(folder)


def test_overrides_that_the_file_cannot_fill_are_refused(folder):
    with pytest.raises(InputError, match=r"lacks 'lm_head\.weight'"):
        load(folder, tie_word_embeddings=False)
    with pytest.raises(InputError, match="no place"):
        load(folder, num_layers=1)


@pytest.mark.usefixtures("frozen_heap")
def test_lora_and_quantized_backbones_are_refused(folder):
    backbone = load(folder)
    backbone.enable_lora(2)
    with pytest.raises(InputError, match="LoRA"):
        load_weights(backbone, folder)
    quantized = load(folder)
    quantized.quantize("int8")
    with pytest.raises(InputError, match="quantized"):
        load_weights(quantized, folder)


def test_random_presets_load_nothing():
    backbone = LlamaBackbone.from_preset("llama-tiny")
    before = snapshot(backbone)
    load_weights(backbone, "llama-tiny")
    for a, b in zip(before, snapshot(backbone), strict=True):
        np.testing.assert_array_equal(a, b)
    assert backbone.count_params() == PRESETS["llama-tiny"].parameters


def test_a_saved_directory_keeps_what_hugging_face_cannot_say(tmp_path):
    backbone = load(CHECKPOINTS / "untied", attention_mask="bidirectional")
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "llama_keras.json").write_text(json.dumps({"backbone": backbone.config.to_dict()}))
    write_weights(backbone, folder / "model.safetensors")
    source = resolve(folder)
    assert source.kind == "keras"
    assert backbone_config(source)["attention_mask"] == "bidirectional"
    for a, b in zip(snapshot(backbone), snapshot(load(folder)), strict=True):
        np.testing.assert_array_equal(a, b)
