"""The layout of a backbone's weights: every variable of every variant has one rule that fits."""

import math
import re
import types
from typing import Any

import keras
import numpy as np
import pytest

from llama_keras.errors import InputError
from llama_keras.models import LlamaBackbone, LlamaConfig
from llama_keras.models.layout import check_layout
from tests.models.backbone_suite import SIZES, VARIANTS, quantized

MESHES = [(1, 2), (2, 1), (2, 2), (1, 4), (4, 1), (1, 3)]
QUANTIZATIONS = ("int8", "int4", "float8")


def mesh_of(shape, names=("batch", "model")) -> Any:
    devices = [f"cpu:{index}" for index in range(math.prod(shape))]
    return keras.distribution.DeviceMesh(shape, names, devices=np.array(devices))


def layout_of(shape, **arguments) -> Any:
    return LlamaBackbone.get_layout_map(mesh_of(shape), **arguments)


def adapted(backbone: Any) -> Any:
    names = ("query", "key", "value", "output", "gate", "up", "down")
    backbone.enable_lora(3, target_layer_names=[f"{name}_dense" for name in names])
    for layer in (backbone.token_embedding, backbone.position_embedding):
        if layer is not None:
            layer.enable_lora(3)
    return backbone


def assert_covered(backbone: Any) -> None:
    """Each variable matches one rule, whose dimensions the devices divide."""
    for shape in MESHES:
        layout = layout_of(shape, config=backbone.config)
        devices = dict(zip(("batch", "model"), shape, strict=True))
        for variable in backbone.variables:
            matching = [rule for rule in layout if re.fullmatch(rule, variable.path)]
            assert len(matching) == 1, (variable.path, matching)
            axes = layout[variable.path].axes
            assert len(axes) in (0, len(variable.shape)), variable.path
            for size, axis in zip(variable.shape, axes, strict=False):
                assert axis is None or size % devices[axis] == 0, (shape, variable.path)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variable_has_one_rule(variant):
    assert_covered(LlamaBackbone(**{**SIZES, "dropout": 0.1, **VARIANTS[variant]}))


@pytest.mark.parametrize("variant", ["biases", "article"])
def test_lora_has_rules(variant):
    backbone = adapted(LlamaBackbone(**{**SIZES, **VARIANTS[variant]}))
    assert sum("lora" in variable.path for variable in backbone.variables) > 20
    assert_covered(backbone)


@pytest.mark.parametrize("mode", QUANTIZATIONS)
def test_what_quantization_adds_has_rules(mode):
    plain = LlamaBackbone(**SIZES, attention_bias=True)
    before = {variable.path for variable in plain.variables}
    backbone = quantized(plain, mode)
    assert before < {variable.path for variable in backbone.variables}
    assert_covered(backbone)


def test_a_variable_without_a_rule_is_found():
    backbone = LlamaBackbone(**SIZES)
    extra = types.SimpleNamespace(path="transformer_layer_0/attention/gate", shape=(16,))
    changed = types.SimpleNamespace(config=backbone.config, variables=[extra])
    with pytest.raises(AssertionError, match="attention/gate"):
        assert_covered(changed)


def test_both_axes_split_kernels_and_embeddings():
    layout = layout_of((2, 2))
    block = "transformer_layer_11/"
    expected = {
        "token_embedding/embeddings": ("model", "batch"),
        "token_embedding/reverse_embeddings": ("batch", "model"),
        "position_embedding/embeddings": (None, "batch"),
        block + "attention/query_dense/kernel": ("batch", "model"),
        block + "attention/value_dense/bias": ("model",),
        block + "attention/output_dense/kernel": ("model", "batch"),
        block + "attention/output_dense/bias": (),
        block + "feed_forward/gate_dense/kernel": ("batch", "model"),
        block + "feed_forward/down_dense/kernel": ("model", "batch"),
        block + "feed_forward/down_dense/lora_kernel_a": ("model", None),
        block + "feed_forward/down_dense/lora_kernel_b": (None, "batch"),
        block + "feed_forward_norm/scale": (),
    }
    for path, axes in expected.items():
        assert layout[path].axes == axes, path
        assert layout["my_model/" + path].axes == axes, path
    assert layout["classifier/kernel"] is None


def test_heads_stay_whole():
    kernel = "transformer_layer_0/attention/{}_dense/kernel"
    layout = layout_of((1, 4), config={**SIZES, "num_key_value_heads": 2})
    assert layout[kernel.format("query")].axes == ("batch", "model")
    assert layout[kernel.format("key")].axes == layout[kernel.format("value")].axes
    assert layout[kernel.format("key")].axes == ("batch", None)
    # 9 query heads, 3 of keys and values, on 2 devices
    heads = {"num_query_heads": 9, "num_key_value_heads": 3, "hidden_dim": 36}
    smollm2 = layout_of((1, 2), config={**SIZES, **heads})
    assert smollm2[kernel.format("query")].axes == ("batch", None)
    assert smollm2[kernel.format("output")].axes == (None, "batch")


def test_axes_have_the_names_of_the_mesh():
    mesh = mesh_of((2, 2), ("rows", "columns"))
    layout = LlamaBackbone.get_layout_map(mesh, "columns", "rows")
    assert layout["token_embedding/embeddings"].axes == ("columns", "rows")
    assert layout.device_mesh is mesh


def test_config_may_be_a_preset():
    layout = layout_of((1, 4), config="llama-tiny")
    assert layout["token_embedding/embeddings"].axes == ("model", "batch")


@pytest.mark.parametrize(
    ("mesh", "arguments", "message"),
    [
        ("cpu:0", {}, "DeviceMesh; received str"),
        ((2, 2), {"model_parallel_dim_name": "tensor"}, "'tensor' is no axis of the mesh"),
        ((2, 2), {"data_parallel_dim_name": "data"}, "'data' is no axis of the mesh"),
        ((2, 2), {"config": {"hidden_dim": 16}}, "config must be a preset's name"),
        ((2, 2), {"config": 7}, "config must be a preset's name"),
    ],
)
def test_bad_arguments_are_named(mesh, arguments, message):
    mesh = mesh if isinstance(mesh, str) else mesh_of(mesh)
    with pytest.raises(InputError, match=message):
        LlamaBackbone.get_layout_map(mesh, **arguments)


@pytest.mark.parametrize(
    ("changed", "weight"),
    [
        ({"vocabulary_size": 29}, r"token_embedding/embeddings \(29, 16\).*29 is no multiple"),
        ({"hidden_dim": 18, "head_dim": 4}, "axis 'batch'"),
        ({"num_key_value_heads": 1, "head_dim": 5, "num_query_heads": 4}, "key_dense"),
        ({"intermediate_dim": 25}, "gate_dense"),
        ({"intermediate_dim": 25, "feed_forward": "mlp"}, "up_dense"),
    ],
)
def test_a_backbone_that_does_not_divide_is_refused(changed, weight):
    sizes = {**SIZES, "vocabulary_size": 32}
    layout_map = layout_of((4, 4) if "hidden_dim" in changed else (1, 4))
    distribution = keras.distribution.ModelParallel(layout_map=layout_map, batch_dim_name="batch")
    check_layout(distribution, LlamaConfig(**sizes))
    with pytest.raises(InputError, match=weight):
        check_layout(distribution, LlamaConfig(**{**sizes, **changed}))
