"""The LiteRT engine against the Keras one: same texts, whatever is asked in between."""

import sys
import warnings

import keras
import numpy as np
import pytest

from llama_keras.errors import InputError, MissingDependencyError
from llama_keras.models import LlamaBackbone
from llama_keras.models.generation import MAX_ROWS
from llama_keras.serving import litert as conversion
from llama_keras.tasks import CausalLM
from llama_keras.text import Tokenizer

PROMPTS = ["Once upon a time", "x", "A much longer prompt than the others, with many tokens", "née"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLAMA_KERAS_CACHE", str(folder))
        yield folder / "litert"


def sharpened(**kwargs) -> CausalLM:
    """Tiny, random, and sharpened so that its text varies and no two tokens tie."""
    keras.utils.set_random_seed(1)
    model = CausalLM.from_preset("llama-tiny", jit_generate=False, **kwargs)
    for variable in model.backbone.variables:
        if len(variable.shape) > 1:
            variable.assign(variable * 3.0)
    return model


@pytest.fixture(scope="module")
def model():
    return sharpened()


def assert_same(found, expected, atol=1e-4):
    assert [row.token_ids for row in found] == [row.token_ids for row in expected]
    assert [row.finish_reason for row in found] == [row.finish_reason for row in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, atol=atol)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 1.2, "top_k": 50, "top_p": 0.9, "seed": [3, 4, 5, 6]},
        {"temperature": [0.0, 1.0, 0.0, 0.7], "max_new_tokens": [1, 40, 17, 16]},
        {"stop": ["\n", "a"]},
    ],
)
def test_float32_equals_keras(model, settings):
    settings = {"max_new_tokens": 40, **settings}
    expected = model.generate(PROMPTS, **settings)
    assert_same(model.generate(PROMPTS, engine="litert_float32", **settings), expected)


def test_more_prompts_than_one_batch_and_longer_than_the_first_cache(model):
    prompts = [*(PROMPTS * (MAX_ROWS // 4)), "long " * 40, "end"]
    expected = model.generate(prompts, max_new_tokens=5)
    assert_same(model.generate(prompts, max_new_tokens=5, engine="litert_float32"), expected)


@pytest.mark.slow
def test_the_articles_llama_too():
    keras.utils.set_random_seed(2)
    model = CausalLM(
        backbone=LlamaBackbone(
            vocabulary_size=512,
            num_layers=2,
            num_query_heads=4,
            num_key_value_heads=2,
            hidden_dim=32,
            max_sequence_length=96,
            attention_kernel="gaussian",
            feed_forward="mlp",
            positions="learned",
        ),
        tokenizer=Tokenizer.from_preset("llama-tiny"),
    )
    expected = model.generate(PROMPTS, max_new_tokens=12)
    assert_same(model.generate(PROMPTS, max_new_tokens=12, engine="litert_float32"), expected)


def test_an_end_token_ends_the_text(model, monkeypatch):
    answer = model.generate(PROMPTS[0], max_new_tokens=12)
    end = answer.token_ids[6]
    monkeypatch.setattr(type(model.tokenizer), "end_ids", property(lambda self: (end,)))
    found, expected = (
        model.generate([PROMPTS[0]], max_new_tokens=12, engine=engine)
        for engine in ("litert_float32", "keras")
    )
    assert expected[0].finish_reason == "stop"
    assert_same(found, expected)


def test_texts_streamed_in_turns_do_not_mix(model):
    settings = {"max_new_tokens": 50, "engine": "litert_float32"}
    expected = [model.generate(prompt, **settings).text for prompt in PROMPTS]
    streams = [model.stream(prompt, **settings) for prompt in PROMPTS]
    texts = [""] * len(streams)
    open_streams = list(range(len(streams)))
    while open_streams:
        for at in list(open_streams):
            piece = next(streams[at], None)
            if piece is None:
                open_streams.remove(at)
            else:
                texts[at] += piece
    assert texts == expected


def test_int8_is_small_and_near(model, cache):
    exact = model.generate(PROMPTS, max_new_tokens=2, engine="litert_float32")
    near = model.generate(PROMPTS, max_new_tokens=2, engine="litert")
    (small,) = cache.glob("*-int8.tflite")
    large = cache / small.name.replace("-int8", "-none")
    # 8 bits for 32, beside code that both have.
    assert small.stat().st_size < 0.6 * large.stat().st_size
    for one, other in zip(near, exact, strict=True):
        # The first token comes from Keras; the second is the first that LiteRT scores.
        assert one.log_probabilities[1] == pytest.approx(other.log_probabilities[1], abs=0.1)
        assert one.log_probabilities[1] != other.log_probabilities[1]


@pytest.mark.slow
def test_a_file_is_written_once_for_each_set_of_weights(monkeypatch):
    written = []

    def convert(backbone, path, *, quantization):
        written.append(path)
        return real(backbone, path, quantization=quantization)

    real = conversion.convert_decoder
    monkeypatch.setattr(conversion, "convert_decoder", convert)
    first = sharpened()
    before = first.generate(PROMPTS, max_new_tokens=4, engine="litert_float32")
    again = sharpened().generate(PROMPTS, max_new_tokens=4, engine="litert_float32")
    assert_same(again, before)
    assert len(written) <= 1  # an earlier test may have written it
    written.clear()
    first.backbone.token_embedding.embeddings.assign_add(
        keras.random.normal(first.backbone.token_embedding.embeddings.shape, seed=2)
    )
    changed = first.generate(PROMPTS, max_new_tokens=4, engine="litert_float32")
    assert len(written) == 1
    assert_same(changed, first.generate(PROMPTS, max_new_tokens=4))
    assert changed != before


def test_lora_is_merged():
    model = sharpened()
    model.backbone.enable_lora(2, target_layer_names=["query_dense", "down_dense"])
    block = model.backbone.transformer_layers[0]
    for dense in (block.attention.query_dense, block.feed_forward.down_dense):
        dense.lora_kernel_b.assign(keras.random.normal(dense.lora_kernel_b.shape, seed=3))
    expected = model.generate(PROMPTS, max_new_tokens=8)
    assert_same(model.generate(PROMPTS, max_new_tokens=8, engine="litert_float32"), expected)


@pytest.mark.slow
def test_bfloat16_weights_are_taken_as_float32():
    model = sharpened(dtype="bfloat16")
    (answer,) = model.generate(PROMPTS[:1], max_new_tokens=3, engine="litert_float32")
    (expected,) = model.generate(PROMPTS[:1], max_new_tokens=3)
    np.testing.assert_allclose(
        answer.log_probabilities[:2], expected.log_probabilities[:2], atol=0.1
    )


@pytest.mark.usefixtures("frozen_heap")
def test_what_cannot_run_is_refused(model, monkeypatch, tmp_path):
    with pytest.raises(InputError, match="engine='onnx' is not known; expected one of"):
        model.generate("x", engine="onnx")
    quantized = sharpened()
    with warnings.catch_warnings():
        # Keras warns of every layer that has nothing to quantize.
        warnings.filterwarnings("ignore", message=".* does not have a `quantize` method")
        quantized.backbone.quantize("int8")
    with pytest.raises(InputError, match="quantized already"):
        quantized.generate("x", engine="litert")
    with pytest.raises(InputError, match="quantization='int4' is not known"):
        conversion.convert_decoder(
            model.backbone,
            tmp_path / "x.tflite",
            quantization="int4",  # pyright: ignore[reportArgumentType]
        )
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(MissingDependencyError, match="pip install ai-edge-litert"):
        sharpened().generate("x", engine="litert_float32")


def test_broken_cache_files_are_named(cache):
    sharpened().generate("x", max_new_tokens=1, engine="litert_float32")
    for path in cache.glob("*-none.tflite"):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"-none.tflite' is no LiteRT file.*Remove"):
        sharpened().generate("x", max_new_tokens=2, engine="litert_float32")
