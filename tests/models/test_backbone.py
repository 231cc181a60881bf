import functools
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from llama_keras.errors import InputError
from llama_keras.models import LlamaBackbone
from tests.layers.longhand import STRICT, load_model, on_tensorflow
from tests.models.backbone_suite import (
    SIZES,
    VARIANTS,
    BackboneSuite,
    assert_close,
    numpy,
    perturbed,
    quantized,
    toy_batch,
)

pytestmark = pytest.mark.filterwarnings(*STRICT)

QUIET: Any = 0  # Keras annotates `verbose` as str


@pytest.mark.parametrize("variant", VARIANTS)
class TestVariants(BackboneSuite):
    @pytest.fixture(autouse=True)
    def _take(self, variant):
        self.variant, self.arguments = variant, VARIANTS[variant]

    def build(self, **more):
        """Gives a backbone of its own where a test names one, else one that no test changes."""
        return super().build(**more) if more else shared(self.variant)


@functools.cache
def shared(variant):
    return build(**VARIANTS[variant])


def build(**arguments):
    return perturbed(LlamaBackbone(**{**SIZES, **arguments}))


def classifier(backbone, **compiled):
    """Gives a model that tells from the last token: first id of the text odd or even."""
    output = backbone(dict(backbone.input))
    logits = keras.layers.Dense(2, dtype="float32", name="head")(output[:, -1])
    model = keras.Model(backbone.input, logits)
    model.compile(
        # Keras would have XLA compile, which takes longer than all else.
        **{"optimizer": keras.optimizers.Adam(3e-3), "jit_compile": False, **compiled},
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def task(count=64, *, mode="causal"):
    ids = np.random.default_rng(0).integers(1, 29, size=(count, 5)).astype("int32")
    data = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    if mode == "prefix":
        data["prefix_mask"] = np.array([[1, 1, 1, 0, 0]] * count)
    return data, ids[:, 0] % 2


def shapes(backbone):
    return {w.path: tuple(w.shape) for w in backbone.weights}


def test_weights_of_the_plain_shape():
    got = shapes(build())
    block = "transformer_layer_1"
    assert len(got) == 1 + 1 + 2 * 9 + 1
    assert got["token_embedding/embeddings"] == (29, 16)
    assert got["token_embedding/reverse_embeddings"] == (16, 29)
    assert got[f"{block}/attention/query_dense/kernel"] == (16, 16)
    assert got[f"{block}/attention/key_dense/kernel"] == (16, 8)
    assert got[f"{block}/attention/value_dense/kernel"] == (16, 8)
    assert got[f"{block}/attention/output_dense/kernel"] == (16, 16)
    assert got[f"{block}/feed_forward/gate_dense/kernel"] == (16, 24)
    assert got[f"{block}/feed_forward/up_dense/kernel"] == (16, 24)
    assert got[f"{block}/feed_forward/down_dense/kernel"] == (24, 16)
    assert got[f"{block}/attention_norm/scale"] == (16,)
    assert got[f"{block}/feed_forward_norm/scale"] == (16,)
    assert got["layer_norm/scale"] == (16,)


@pytest.mark.parametrize(
    ("flags", "added", "gone"),
    [
        ({"tie_word_embeddings": True}, 0, 1),
        ({"attention_bias": True}, 8, 0),
        ({"mlp_bias": True}, 6, 0),
    ],
    ids=str,
)
def test_flags_add_and_remove_just_their_weights(flags, added, gone):
    plain, other = set(shapes(build())), set(shapes(build(**flags)))
    assert (len(other - plain), len(plain - other)) == (added, gone)


def test_published_sizes_without_memory():
    """Counts SmolLM2-135M's published 134,515,008 parameters on a backbone of one layer."""
    sizes = {
        "vocabulary_size": 49152,
        "num_query_heads": 9,
        "num_key_value_heads": 3,
        "hidden_dim": 576,
        "intermediate_dim": 1536,
        "tie_word_embeddings": True,
    }
    one = LlamaBackbone(num_layers=1, **sizes)
    layer = one.transformer_layers[0].count_params()
    assert one.count_params() + 29 * layer == 134_515_008


def test_symbolic_output_shape():
    backbone = build()
    assert backbone.output.shape == (None, None, 16)
    spec = {k: keras.KerasTensor((3, 7), "int32") for k in ("token_ids", "padding_mask")}
    packed = {**spec, "segment_ids": spec["token_ids"], "positions": spec["token_ids"]}
    for inputs in (spec, packed):
        assert backbone(inputs).shape == (3, 7, 16)


def test_packed_rows_in_a_functional_model_reload(tmp_path):
    names = ("token_ids", "padding_mask", "segment_ids")
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in names}
    model = keras.Model(inputs, build()(inputs))
    data = toy_batch() | {"segment_ids": np.array([[1, 1, 1, 2, 2, 2]] * 2)}
    together = dict(data, segment_ids=np.ones((2, 6), "int32"))
    assert np.abs(numpy(model(data)) - numpy(model(together))).max() > 1e-3
    model.save(tmp_path / "packed.keras")
    again = load_model(tmp_path / "packed.keras")
    assert_close(again(data), model(data), 0.0)


@pytest.mark.parametrize("variant", ["plain", "gaussian", "unnormalized", "article"])
def test_compiled_equals_plain(variant):
    backbone = build(**VARIANTS[variant])
    batch = toy_batch((6, 4), mode=backbone.config.attention_mask)
    plain = backbone(batch)
    backbone.compile(jit_compile=True)
    assert_close(backbone.predict(batch, verbose=0), plain, 2e-5)


@pytest.mark.parametrize(
    ("variant", "layers", "xla"), [("plain", 1, True), ("plain", 2, False), ("article", 2, False)]
)
def test_fit_lowers_the_loss(variant, layers, xla):
    sizes = {"tie_word_embeddings": True, "num_layers": layers}
    model = classifier(build(**VARIANTS[variant], **sizes), jit_compile=xla)
    data, labels = task()
    losses = model.fit(data, labels, epochs=12, batch_size=16, verbose=QUIET).history["loss"]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_fit_in_mixed_precision_lowers_the_loss(dtype):
    optimizer = keras.optimizers.Adam(3e-3)
    if dtype == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1024.0)
    model = classifier(build(tie_word_embeddings=True, dtype=dtype), optimizer=optimizer)
    data, labels = task()
    losses = model.fit(data, labels, epochs=8, batch_size=16, verbose=QUIET).history["loss"]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    "variant",
    ["plain", "biases", "bidirectional", "multi-query", "wide heads"]
    + ["prefix", "gaussian", "unnormalized", "article"],
)
def test_gradients_reach_every_weight(variant):
    # The reverse embedding is the head's business: tie it, so that every weight is on the way.
    backbone = build(**VARIANTS[variant], tie_word_embeddings=True)
    model = classifier(backbone, optimizer=keras.optimizers.SGD(1.0))
    before = [numpy(w) for w in backbone.trainable_weights]
    data, labels = task(mode=backbone.config.attention_mask)
    model.train_on_batch(data, labels)
    for old, new in zip(before, backbone.trainable_weights, strict=True):
        if new.path.endswith("key_dense/bias"):
            continue  # rotary turns it, so softmax cancels all but a little
        assert np.abs(numpy(new) - old).max() > 1e-7, new.path


def test_dropout_acts_in_training_only():
    backbone, batch = build(dropout=0.3), toy_batch()
    quiet = numpy(backbone(batch))
    np.testing.assert_array_equal(quiet, numpy(build()(batch)))
    np.testing.assert_array_equal(quiet, numpy(backbone(batch, training=False)))
    packed = batch | {"segment_ids": np.ones((2, 6), "int32")}
    for inputs in (batch, packed):
        first, second = (numpy(backbone(inputs, training=True)) for _ in range(2))
        assert np.abs(first - quiet).max() > 1e-2 and np.abs(first - second).max() > 1e-2


def test_every_layer_follows_the_dtype_policy():
    backbone = LlamaBackbone(**SIZES, dtype="mixed_bfloat16")
    for layer in backbone._flatten_layers():
        if layer.weights or layer.name in ("attention_bias", "rotary_embedding"):
            assert layer.compute_dtype == "bfloat16" and layer.variable_dtype == "float32", layer
    assert build().compute_dtype == "float32"


def test_dtype_policy_per_layer():
    policies = keras.dtype_policies.DTypePolicyMap("float32")
    policies["transformer_layer_1/feed_forward/down_dense"] = "mixed_bfloat16"
    backbone = build(dtype=policies)
    down = [layer.feed_forward.down_dense.compute_dtype for layer in backbone.transformer_layers]
    assert down == ["float32", "bfloat16"]
    again = LlamaBackbone.from_config(backbone.get_config())
    assert again.transformer_layers[1].feed_forward.down_dense.compute_dtype == "bfloat16"


def test_global_policy_is_followed_and_not_touched():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        backbone = LlamaBackbone(**SIZES)
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy(before)
    assert backbone.compute_dtype == "bfloat16"


def test_lora_trains_its_own_weights_only(tmp_path):
    backbone, batch = build(), toy_batch()
    exact = numpy(backbone(batch))
    backbone.enable_lora(2)
    assert_close(backbone(batch), exact, 1e-6)
    paths = {w.path for w in backbone.trainable_weights}
    assert paths == {
        f"transformer_layer_{i}/attention/{name}_dense/lora_kernel_{side}"
        for i in range(2)
        for name in ("query", "value")
        for side in "ab"
    }
    model = classifier(backbone, optimizer=keras.optimizers.Adam(1e-2))
    before = {w.path: numpy(w) for w in backbone.weights}
    data, labels = task()
    losses = model.fit(data, labels, epochs=3, batch_size=16, verbose=QUIET).history["loss"]
    assert losses[-1] < losses[0]
    moved = {w.path for w in backbone.weights if np.abs(numpy(w) - before[w.path]).max() > 0}
    assert moved == paths
    output = backbone(batch)
    assert np.abs(numpy(output) - exact).max() > 1e-3
    # The adapter alone, and merged into a whole model.
    backbone.save_lora_weights(str(tmp_path / "adapter.lora.h5"))
    other = build()
    other.load_lora_weights(str(tmp_path / "adapter.lora.h5"))
    assert_close(other(batch), output, 1e-6)
    backbone.save(tmp_path / "merged.keras")
    assert_close(load_model(tmp_path / "merged.keras")(batch), output, 1e-5)


def test_lora_on_named_layers():
    backbone = build()
    backbone.enable_lora(1, target_layer_names=["down_dense"])
    parents = {w.path.split("/", 1)[1].rsplit("/", 1)[0] for w in backbone.trainable_weights}
    assert parents == {"feed_forward/down_dense"}


def test_lora_on_int8_weights_trains():
    backbone = quantized(build())
    backbone.enable_lora(2)
    model = classifier(backbone, optimizer=keras.optimizers.Adam(1e-2))
    data, labels = task()
    losses = model.fit(data, labels, epochs=3, batch_size=16, verbose=QUIET).history["loss"]
    assert losses[-1] < losses[0]


def test_weights_of_the_article_s_encoder():
    got = shapes(build(**VARIANTS["article"]))
    block = "transformer_layer_1"
    assert len(got) == 1 + 1 + 1 + 2 * 11 + 1
    assert got["position_embedding/embeddings"] == (32, 16)
    assert got[f"{block}/attention/attention_kernel/log_temperature"] == ()
    assert got[f"{block}/feed_forward/up_dense/kernel"] == (16, 64)
    assert got[f"{block}/feed_forward/up_dense/bias"] == (64,)
    assert got[f"{block}/feed_forward/down_dense/kernel"] == (64, 16)
    assert got[f"{block}/feed_forward/down_dense/bias"] == (16,)


def test_each_layer_learns_its_own_temperature():
    backbone = build(
        attention_kernel="gaussian", attention_temperature=0.5, learned_temperature=True
    )
    kernels = [layer.attention.attention_kernel for layer in backbone.transformer_layers]
    assert kernels[0].log_temperature is not kernels[1].log_temperature
    fresh = LlamaBackbone(**{**SIZES, **backbone.get_config(), "name": None})
    for layer in fresh.transformer_layers:
        assert numpy(layer.attention.attention_kernel.current_temperature()) == pytest.approx(0.5)


def test_configs_from_before_the_article_s_options_are_llama():
    config = build().get_config()
    for name in (
        "attention_kernel",
        "attention_temperature",
        "learned_temperature",
        "normalize_attention",
        "feed_forward",
        "mlp_activation",
        "positions",
    ):
        del config[name]
    again = LlamaBackbone.from_config(config)
    assert shapes(again) == shapes(build())
    assert again.config == build().config


def test_prefix_models_have_an_input_more_and_others_refuse_it():
    backbone, batch = build(attention_mask="prefix"), toy_batch(mode="prefix")
    assert set(backbone.input) == set(batch)
    plain = {k: v for k, v in batch.items() if k != "prefix_mask"}
    symbolic = {k: keras.KerasTensor((2, 6), "int32") for k in plain}
    for inputs in (plain, symbolic, {**plain, "segment_ids": np.ones((2, 6), "int32")}):
        with pytest.raises(ValueError, match='Missing data for input "prefix_mask"'):
            backbone(inputs)  # Keras's own message
    with pytest.raises(InputError, match="needs 'prefix_mask'"):
        backbone.attention_weights(plain)
    for mode in ("causal", "bidirectional"):
        with pytest.raises(InputError, match=f"'{mode}' takes no 'prefix_mask'"):
            build(attention_mask=mode)(batch)
    # Without a token in the prefix the model is causal.
    batch["prefix_mask"] = np.zeros_like(batch["prefix_mask"])
    assert_close(backbone(batch), build()(plain), 1e-6)


def test_learned_positions_are_limited():
    backbone = build(positions="learned", max_sequence_length=6)
    packed = toy_batch((8,)) | {"segment_ids": np.array([[1] * 5 + [2] * 3])}
    assert backbone(packed).shape == (1, 8, 16)
    assert build(max_sequence_length=6)(toy_batch((8,))).shape == (1, 8, 16)
    for call in (backbone, backbone.attention_weights):
        with pytest.raises(InputError, match="8 tokens, and this model has learned 6 positions"):
            call(toy_batch((8,)))


def test_learned_positions_limit_each_segment_and_not_the_padding():
    backbone = build(positions="learned", max_sequence_length=6)
    packed = toy_batch((8,)) | {"segment_ids": np.array([[1] * 7 + [2]])}
    given = toy_batch((4,)) | {"positions": np.array([[0, 1, 2, 6]])}
    for inputs in (packed, given):
        for call in (backbone, backbone.attention_weights):
            with pytest.raises(InputError, match="at position 6, and this model has learned 6 pos"):
                call(inputs)
    assert_close(backbone(padded_segment(13))[:, :4], backbone(padded_segment(4)))


def padded_segment(length):
    """Gives one packed segment of 4 tokens in a row of `length`."""
    short = toy_batch((4,)) | {"segment_ids": np.array([[1] * 4])}
    return {name: np.pad(part, ((0, 0), (0, length - 4))) for name, part in short.items()}


@on_tensorflow
def test_a_graph_has_no_values_to_check_while_it_is_made():
    backbone, long = build(positions="learned", max_sequence_length=6), padded_segment(13)
    run = tf.function(lambda inputs: backbone(inputs))
    assert_close(run(long), backbone(long))
    with pytest.raises(tf.errors.InvalidArgumentError, match="is not in"):
        run(toy_batch((8,)) | {"segment_ids": np.array([[1] * 7 + [2]])})


@pytest.mark.parametrize("variant", ["plain", "gaussian", "article"])
@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "float16"])
def test_attention_weights_in_half_precision_are_float32_and_add_up_to_one(variant, dtype):
    backbone, batch = build(**VARIANTS[variant], dtype=dtype), toy_batch()
    for weights in backbone.attention_weights(batch):
        assert keras.backend.standardize_dtype(weights.dtype) == "float32"
        np.testing.assert_allclose(numpy(weights).sum(axis=-1), 1.0, atol=0.02)


@pytest.mark.parametrize("variant", ["plain", "article"])
def test_a_truncated_copy_equals_the_first_blocks(variant):
    backbone, batch = build(**VARIANTS[variant]), toy_batch((6, 4))
    inner = keras.Model(backbone.input, backbone.transformer_layers[0].output)
    assert_close(backbone.truncated(1)(batch), backbone.layer_norm(inner(batch)), 1e-6)
    with pytest.raises(InputError, match="1 … 2; received 3"):
        backbone.truncated(3)


def test_cache_needs_a_causal_model():
    backbone = build(attention_mask="bidirectional")
    with pytest.raises(InputError, match="'bidirectional'"):
        backbone.call_with_cache(
            ops.ones((1, 1), dtype="int32"),
            cache=backbone.init_cache(1, 2),
            cache_index=0,
            positions=ops.zeros((1, 1), dtype="int32"),
            bias=ops.zeros((1, 1, 1, 2)),
        )


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_empty_cache_has_the_key_value_heads_and_compute_dtype(dtype):
    backbone = build(num_key_value_heads=1, head_dim=6, dtype=dtype)
    cache = backbone.init_cache(3, 5)
    assert len(cache) == 2
    for entry in cache:
        for part in entry:
            assert tuple(part.shape) == (3, 1, 5, 6)
            assert keras.backend.standardize_dtype(part.dtype) == backbone.compute_dtype
