"""The tests that every backbone must pass, whatever its flags and on whichever Keras backend.

Subclass `BackboneSuite` in a test file and set `arguments`; `tests/models/jax_worker.py` uses
`perturbed` and `toy_batch` from here too.

Axes: B batch, T tokens, S cache length.
"""

import gc
import itertools
import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from llama_keras.layers.masking import additive
from llama_keras.models import LlamaBackbone
from tests.layers import longhand
from tests.layers.longhand import load_model, numpy

SIZES: dict[str, Any] = {
    "vocabulary_size": 29,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 24,
}
LLAMA3: dict[str, Any] = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
# One entry per flag that changes weights or arithmetic.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "wide heads": {"head_dim": 10},
    "multi-head": {"num_key_value_heads": 4, "layer_norm_epsilon": 1e-2},
    "multi-query": {"num_key_value_heads": 1, "rope_max_wavelength": 500.0},
    "linear": {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    "llama3": {"rope_scaling": LLAMA3, "tie_word_embeddings": True},
    "bidirectional": {"attention_mask": "bidirectional"},
    "prefix": {"attention_mask": "prefix"},
    "gaussian": {"attention_kernel": "gaussian", "attention_temperature": 0.7},
    "unnormalized": {
        "attention_kernel": "gaussian",
        "normalize_attention": False,
        "attention_mask": "prefix",
        "positions": "none",
    },
    "mlp": {"feed_forward": "mlp", "positions": "learned", "max_sequence_length": 32},
    "article": {
        "attention_mask": "bidirectional",
        "attention_kernel": "gaussian",
        "learned_temperature": True,
        "feed_forward": "mlp",
        "intermediate_dim": None,
        "mlp_activation": "gelu",
        "positions": "learned",
        "max_sequence_length": 32,
    },
}
# How a cache is filled: at once, prefill and steps, chunks. A prefix must lie in the first piece.
PIECES = {"causal": ((6,), (3, 1, 1, 1), (2, 4)), "prefix": ((6,), (4, 1, 1), (4, 2))}
PREFIX = 2  # real tokens of each text that see each other both ways, where the mask is "prefix"


def assert_close(a: Any, b: Any, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(numpy(a), numpy(b), rtol=tolerance, atol=tolerance)


def perturbed(backbone: Any, seed: int = 0) -> Any:
    """Gives the backbone back with weights that leave no scale, bias or symmetry at its default."""
    generator = np.random.default_rng(seed)
    for variable in backbone.weights:
        noise = generator.normal(size=variable.shape) * 0.25
        variable.assign(noise + 1.0 if variable.name == "scale" else noise)
    return backbone


def toy_batch(
    lengths=(6, 6), *, side: str = "right", width: int | None = None, mode: str = "causal"
) -> dict:
    """Gives texts of the lengths, the same whatever the side and width of the padding.

    For the mask `mode` "prefix" there is a prefix mask, too.
    """
    width = width or max(lengths)
    ids, mask = (np.zeros((len(lengths), width), "int32") for _ in range(2))
    for row, length in enumerate(lengths):
        at = slice(0, length) if side == "right" else slice(width - length, width)
        ids[row, at] = np.random.default_rng(row).integers(1, 29, size=length)
        mask[row, at] = 1
    batch = {"token_ids": ids, "padding_mask": mask}
    if mode == "prefix":
        batch["prefix_mask"] = mask * (np.cumsum(mask, axis=1) <= PREFIX)
    return batch


def real(output: Any, batch: dict) -> list[np.ndarray]:
    """Gives the rows without their padding."""
    return [row[mask == 1] for row, mask in zip(numpy(output), batch["padding_mask"], strict=True)]


def quantized(backbone: Any, mode: str = "int8") -> Any:
    gc.freeze()  # Keras collects garbage after each layer: 8 s over all that a test run has made
    with warnings.catch_warnings():
        # Keras warns of every layer that has nothing to quantize.
        warnings.filterwarnings("ignore", message=".* does not have a `quantize` method")
        backbone.quantize(mode)
    gc.unfreeze()
    return backbone


class BackboneSuite:
    """Tests of one backbone; `arguments` are those of its constructor beyond `SIZES`."""

    arguments: dict[str, Any] = {}

    def build(self, **more) -> Any:
        return perturbed(LlamaBackbone(**{**SIZES, **self.arguments, **more}))

    @property
    def mode(self) -> str:
        return self.arguments.get("attention_mask", "causal")

    @property
    def prefix(self) -> int:
        return PREFIX if self.mode == "prefix" else 0

    @property
    def positions(self) -> str:
        return self.arguments.get("positions", "rotary")

    def batch(self, lengths=(6, 6), **options) -> dict:
        return toy_batch(lengths, mode=self.mode, **options)

    def test_equals_longhand(self):
        backbone, batch = self.build(), self.batch((6, 4))
        output = backbone(batch)
        logits = backbone.token_embedding(output, reverse=True)
        assert logits.shape == (2, 6, 29)
        for row, length in enumerate((6, 4)):
            ids = batch["token_ids"][row, :length]
            expected = longhand.backbone(backbone, ids, prefix=self.prefix)
            np.testing.assert_allclose(numpy(output)[row, :length], expected, atol=2e-4, rtol=2e-4)
            expected = longhand.logits(backbone, ids, prefix=self.prefix)
            np.testing.assert_allclose(numpy(logits)[row, :length], expected, atol=2e-4, rtol=2e-4)

    def test_a_token_moves_those_that_see_it_and_no_others(self):
        backbone = self.build()
        sees = longhand.sees(6, causal=self.mode != "bidirectional", prefix=self.prefix)
        for rows, place in itertools.product((1, 2), (4, 1)):  # outside and inside the prefix
            batch = self.batch((6,) * rows)
            changed = {**batch, "token_ids": batch["token_ids"].copy()}
            changed["token_ids"][:, place] = (changed["token_ids"][:, place] + 1) % 29
            moved = np.abs(numpy(backbone(batch)) - numpy(backbone(changed))).max(axis=-1)
            assert sees[place:, place].all(), "a change must reach its own and later places"
            assert sees[0, place] == (self.mode == "bidirectional" or place < self.prefix)
            assert (moved[:, sees[:, place]] > 1e-4).all()
            assert (moved[:, ~sees[:, place]] == 0.0).all()

    def test_attention_weights_are_those_of_the_formula(self):
        backbone, batch = self.build(), self.batch((6, 4), side="left")
        layers = [numpy(weights) for weights in backbone.attention_weights(batch)]
        assert [weights.shape for weights in layers] == [(2, 4, 6, 6)] * 2
        first = backbone.transformer_layers[0]
        scale = longhand.weight(first.attention_norm.scale)
        options = longhand.attention_options(backbone, self.prefix)
        for row, length in enumerate((6, 4)):
            x = longhand.embed(backbone, batch["token_ids"][row, -length:])
            x = longhand.rms_norm(x, scale, backbone.config.layer_norm_epsilon)
            expected = longhand.weights(first.attention, x, **options)
            got = layers[0][row, :, -length:, -length:]
            np.testing.assert_allclose(got, expected, atol=1e-5)
            sees = longhand.sees(length, causal=self.mode != "bidirectional", prefix=self.prefix)
            assert (layers[1][row, :, -length:, -length:][:, ~sees] == 0.0).all()

    def test_padding_on_either_side_changes_nothing(self):
        backbone, lengths = self.build(), (6, 3)
        alone = [numpy(backbone(self.batch(lengths[:1])))[0]]
        single = self.batch(lengths)
        second = {k: v[1:, :3] for k, v in single.items()}
        alone.append(numpy(backbone(second))[0])
        for side in ("left", "right"):
            batch = self.batch(lengths, side=side, width=9)
            for dtype in ("int32", "bool"):
                typed = {**batch, "padding_mask": batch["padding_mask"].astype(dtype)}
                for got, expected in zip(real(backbone(typed), batch), alone, strict=True):
                    assert_close(got, expected, 2e-5)

    def test_batch_of_two_is_two_of_one(self):
        backbone, batch = self.build(), self.batch((6, 4))
        both = numpy(backbone(batch))
        for row in range(2):
            one = backbone({k: v[row : row + 1] for k, v in batch.items()})
            assert_close(one[0], both[row])

    def test_packed_rows_equal_unpacked(self):
        backbone, lengths = self.build(), (3, 4, 2)
        texts = self.batch(lengths)
        expected = np.concatenate(real(backbone(texts), texts))
        ids = texts["token_ids"][texts["padding_mask"] == 1]
        packed = {
            "token_ids": np.concatenate([ids, [0]])[None].astype("int32"),
            "padding_mask": np.array([[1] * 9 + [0]]),
            "segment_ids": np.array([[1] * 3 + [2] * 4 + [3] * 2 + [0]]),
        }
        if self.prefix:
            packed["prefix_mask"] = np.array([[1, 1, 0, 1, 1, 0, 0, 1, 1, 0]])
        assert_close(backbone(packed)[0, :9], expected, 2e-5)
        positions = np.array([[0, 1, 2, 0, 1, 2, 3, 0, 1, 0]])
        assert_close(backbone({**packed, "positions": positions})[0, :9], expected, 2e-5)
        unlike = backbone({**packed, "positions": positions * 3})[0, :9]
        moved = np.abs(numpy(unlike) - expected).max()
        assert (moved > 1e-3) == (self.positions != "none"), "given positions must be used"

    def test_a_row_of_padding_gives_no_nan(self):
        for dtype in ("float32", "float16"):
            backbone = self.build(dtype=dtype)
            batch = self.batch((6, 4))
            expected = numpy(backbone(batch))[0]
            batch["padding_mask"][1] = 0
            output = backbone(batch)
            assert np.isfinite(numpy(output)).all()
            assert_close(output[0], expected, 1e-5 if dtype == "float32" else 2e-2)

    def test_cache_equals_no_cache(self):
        if self.mode not in PIECES:
            return
        backbone = self.build()
        lengths, slots = (6, 4), 8
        batch = self.batch(lengths, side="left")
        expected = real(backbone(batch), batch)
        mask, positions = batch["padding_mask"], np.cumsum(batch["padding_mask"], axis=1) - 1
        filled = np.pad(mask, ((0, 0), (0, slots - 6)))
        prefix = np.pad(batch.get("prefix_mask", 0 * mask), ((0, 0), (0, slots - 6)))
        both = (prefix[:, :, None] & prefix[:, None]) == 1
        for pieces in PIECES[self.mode]:
            cache, start, outputs = backbone.init_cache(2, slots), 0, []
            for piece in pieces:
                at = np.arange(start, start + piece)
                visible = (np.arange(slots)[None] <= at[:, None])[None] | both[:, at]
                visible = visible & (filled[:, None] == 1)
                output, cache = backbone.call_with_cache(
                    ops.convert_to_tensor(batch["token_ids"][:, at]),
                    cache=cache,
                    cache_index=start,
                    positions=ops.convert_to_tensor(np.maximum(positions[:, at], 0)),
                    bias=ops.expand_dims(additive(visible, "float32"), 1),
                )
                outputs.append(numpy(output))
                start += piece
            joined = np.concatenate(outputs, axis=1)
            for got, wanted in zip(real(joined, batch), expected, strict=True):
                assert_close(got, wanted, 2e-5)

    def test_config_round_trip_keeps_every_shape_and_flag(self):
        backbone = self.build(name="mine", dtype="mixed_bfloat16")
        config = backbone.get_config()
        again = LlamaBackbone.from_config(config)
        assert again.get_config() == config
        assert again.config == backbone.config
        assert again.name == "mine" and again.dtype_policy == backbone.dtype_policy
        for flag, value in {**SIZES, **self.arguments}.items():
            assert config[flag] == (64 if value is None else value), flag  # 64: four times 16
        assert [(w.path, w.shape, w.dtype) for w in again.weights] == [
            (w.path, w.shape, w.dtype) for w in backbone.weights
        ]
        again.set_weights(backbone.get_weights())
        assert_close(again(self.batch()), backbone(self.batch()), 0.0)

    def test_reloads_from_files(self, tmp_path):
        backbone, batch = self.build(), self.batch((6, 4))
        output = backbone(batch)
        logits = backbone.token_embedding(output, reverse=True)
        backbone.save(tmp_path / "backbone.keras")
        backbone.save_weights(tmp_path / "backbone.weights.h5")
        whole = load_model(tmp_path / "backbone.keras")
        weights = LlamaBackbone(**{**SIZES, **self.arguments})
        weights.load_weights(tmp_path / "backbone.weights.h5")
        again: Any
        for again in (whole, weights):
            assert isinstance(again, LlamaBackbone)
            assert again.config == backbone.config
            assert_close(again(batch), output, 0.0)
            assert_close(again.token_embedding(again(batch), reverse=True), logits, 0.0)
            for one, other in zip(again.weights, backbone.weights, strict=True):
                np.testing.assert_array_equal(numpy(one), numpy(other))

    def test_half_precision_is_close(self):
        batch = self.batch((6, 4))
        exact = numpy(self.build()(batch))
        for dtype, weights in (
            ("mixed_bfloat16", "float32"),
            ("mixed_float16", "float32"),
            ("bfloat16", "bfloat16"),
            ("float16", "float16"),
        ):
            backbone = self.build(dtype=dtype)
            output = backbone(batch)
            computed = backbone.compute_dtype
            assert keras.backend.standardize_dtype(output.dtype) == computed
            assert {w.dtype for w in backbone.weights} == {weights}
            error = np.abs(numpy(output) - exact).mean() / np.abs(exact).mean()
            assert error < (0.05 if computed == "bfloat16" else 0.01), dtype

    def test_int8_is_close_and_reloads(self, tmp_path):
        batch = self.batch((6, 4))
        for dtype in ("float32", "mixed_bfloat16"):
            backbone = self.build(dtype=dtype)
            exact = numpy(backbone(batch))
            output = quantized(backbone)(batch)
            error = np.abs(numpy(output) - exact).mean() / np.abs(exact).mean()
            assert 0 < error < 0.1
            kernel = backbone.transformer_layers[0].attention.query_dense.kernel
            assert keras.backend.standardize_dtype(kernel.dtype) == "int8"
            backbone.save(tmp_path / f"{dtype}.keras")
            again = load_model(tmp_path / f"{dtype}.keras")
            assert again.compute_dtype == backbone.compute_dtype
            assert [w.dtype for w in again.weights] == [w.dtype for w in backbone.weights]
            # Writing must leave the model itself as it was.
            for model in (again, backbone):
                assert model(batch).dtype == output.dtype
                assert_close(model(batch), output, 1e-5 if dtype == "float32" else 1e-2)
