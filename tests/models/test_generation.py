import importlib.util
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from llama_keras.errors import InputError
from llama_keras.models import LlamaBackbone, generation
from llama_keras.models.generation import Generator, pad_left, rounded_length, rounded_rows
from llama_keras.models.sampling import SamplingSettings
from llama_keras.models.scoring import hidden_at, score_tokens
from llama_keras.tasks.compiled import Compiled

PROMPTS = [[1, 2, 3], [5] * 19, [7], [9, 8, 7, 6, 5, 4, 3]]


def make_backbone(**changes):
    keras.utils.set_random_seed(7)
    arguments = {
        "vocabulary_size": 97,
        "num_layers": 2,
        "num_query_heads": 4,
        "num_key_value_heads": 2,
        "hidden_dim": 32,
        "intermediate_dim": 64,
        "max_sequence_length": 200,
    }
    backbone = LlamaBackbone(**{**arguments, **changes})
    for variable in backbone.variables:  # larger weights, so that the text is not monotonous
        variable.assign(variable * 2.5 if len(variable.shape) > 1 else variable)
    return backbone


@pytest.fixture(scope="module")
def backbone():
    return make_backbone()


@pytest.fixture(scope="module")
def compiled(backbone):
    return compiled_generator(backbone)


def compiled_generator(backbone, jit_compile=False):
    def bind(function, jit_compile=False):
        bound = partial(function, backbone)
        return Compiled(bound, variables=backbone.variables, jit_compile=jit_compile)

    return Generator(
        backbone, prefill=bind(generation.prefill), decode=bind(generation.decode, jit_compile)
    )


def continue_all(generator, prompts, *, end_ids=(), **settings):
    rows = [SamplingSettings(**settings)] * len(prompts)
    chunks = list(generator.run(prompts, settings=rows, end_ids=end_ids))
    tokens = np.concatenate([chunk.token_ids for chunk in chunks], axis=1)
    values = np.concatenate([chunk.log_probabilities for chunk in chunks], axis=1)
    return [
        (row[row >= 0].tolist(), value[row >= 0]) for row, value in zip(tokens, values, strict=True)
    ]


def recompute(backbone, prompt, count):
    """Greedy decoding the long way: the whole text anew for each token, no cache, no padding."""
    ids, values = list(prompt), []
    for _ in range(count):
        hidden = backbone({"token_ids": np.array([ids]), "padding_mask": np.ones((1, len(ids)))})
        logits = ops.convert_to_numpy(backbone.token_embedding(hidden, reverse=True))[0, -1]
        values.append(logits.max() - np.log(np.sum(np.exp(logits))))
        ids.append(int(np.argmax(logits)))
    return ids[len(prompt) :], np.array(values)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": True},
        {"num_key_value_heads": 1, "head_dim": 16, "attention_bias": True, "mlp_bias": True},
        {
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ],
)
def test_cached_decoding_of_a_padded_batch_equals_full_recomputation(changes):
    backbone = make_backbone(**changes)
    answers = continue_all(compiled_generator(backbone), PROMPTS, max_new_tokens=18)
    for prompt, (tokens, values) in zip(PROMPTS, answers, strict=True):
        expected, expected_values = recompute(backbone, prompt, 18)
        assert tokens == expected
        np.testing.assert_allclose(values, expected_values, atol=2e-4)
    assert len({tuple(tokens) for tokens, _ in answers}) == len(PROMPTS)


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.3, "top_p": 0.95, "seed": 4}])
def test_a_batch_equals_its_rows_one_by_one(compiled, settings):
    together = continue_all(compiled, PROMPTS, max_new_tokens=24, **settings)
    for prompt, (tokens, _) in zip(PROMPTS, together, strict=True):
        alone = continue_all(compiled, [prompt], max_new_tokens=24, **settings)
        assert alone[0][0] == tokens


def test_uncompiled_and_xla_give_the_same_tokens(backbone, compiled):
    settings = {"max_new_tokens": 20, "temperature": 1.0, "top_k": 30, "seed": 2}
    expected = continue_all(compiled, PROMPTS[:2], **settings)
    for generator in (Generator(backbone), compiled_generator(backbone, jit_compile=True)):
        found = continue_all(generator, PROMPTS[:2], **settings)
        assert [tokens for tokens, _ in found] == [tokens for tokens, _ in expected]


def test_sampling_differs_by_seed_and_repeats(compiled):
    def sample(seed):
        return continue_all(compiled, PROMPTS[:1], max_new_tokens=20, temperature=1.0, seed=seed)[
            0
        ][0]

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


def test_an_end_token_ends_its_row_only(compiled):
    plain = [tokens for tokens, _ in continue_all(compiled, PROMPTS, max_new_tokens=20)]
    end = plain[1][3]
    ended = [
        tokens for tokens, _ in continue_all(compiled, PROMPTS, max_new_tokens=20, end_ids=[end])
    ]
    for before, after in zip(plain, ended, strict=True):
        length = before.index(end) + 1 if end in before else 20
        assert after == before[:length]  # the end token itself is still given
    assert len(ended[1]) < 20


def test_the_loop_ends_as_soon_as_all_rows_have(backbone):
    calls = []

    def counted_call(*arguments, **keywords):
        calls.append(1)
        return LlamaBackbone.call_with_cache(backbone, *arguments, **keywords)

    generator = Generator(backbone)
    end = recompute(backbone, PROMPTS[0], 5)[0][4]
    backbone.call_with_cache = counted_call
    try:
        continue_all(generator, PROMPTS[:1], max_new_tokens=60, end_ids=[end])
    finally:
        del backbone.call_with_cache
    assert len(calls) <= 5  # the prompt and at most 4 tokens; on JAX once per trace


def test_rows_have_their_own_settings_and_lengths(compiled):
    rows = [SamplingSettings(max_new_tokens=n) for n in (1, 30, 4, 18)]
    chunks = list(compiled.run(PROMPTS, settings=rows))
    tokens = np.concatenate([chunk.token_ids for chunk in chunks], axis=1)
    assert (tokens >= 0).sum(axis=1).tolist() == [1, 30, 4, 18]
    assert [chunk.token_ids.shape[1] for chunk in chunks] == [1, 16, 16]


def test_a_row_that_the_caller_stops_goes_no_further(compiled):
    stopped = np.zeros(4, bool)
    rows = [SamplingSettings(max_new_tokens=60)] * 4
    chunks = []
    for chunk in compiled.run(PROMPTS, settings=rows, stopped=stopped):
        chunks.append(chunk.token_ids)
        stopped[:2] = True
        if len(chunks) == 2:
            stopped[:] = True
    tokens = np.concatenate(chunks, axis=1)
    assert (tokens >= 0).sum(axis=1).tolist() == [1, 1, 17, 17]


def test_settings_never_trace_anew(backbone):
    prefill = Compiled(partial(generation.prefill, backbone), variables=backbone.variables)
    decode = Compiled(
        partial(generation.decode, backbone), variables=backbone.variables, jit_compile=True
    )
    generator = Generator(backbone, prefill=prefill, decode=decode)
    for changes in (
        {"max_new_tokens": 20},
        {"max_new_tokens": 37, "temperature": 0.7},
        {"max_new_tokens": 64, "temperature": 1.0, "top_k": 5},
        {"max_new_tokens": 2, "temperature": 1.0, "top_p": 0.5, "seed": 9},
    ):
        for prompts in (PROMPTS[:1], [PROMPTS[3]], [[3] * 16]):
            continue_all(generator, prompts, **changes)
    assert (prefill.traces, decode.traces) == (1, 1)
    continue_all(generator, PROMPTS, max_new_tokens=20)  # another batch size and prompt length
    assert decode.traces == 2
    if keras.backend.backend() == "tensorflow":
        assert prefill.traces == 1  # not compiled by XLA: one trace for all shapes


def test_generation_ends_where_the_context_does():
    backbone = make_backbone(max_sequence_length=24)
    answers = continue_all(Generator(backbone), PROMPTS, max_new_tokens=100)
    assert [len(tokens) for tokens, _ in answers] == [21, 5, 23, 17]
    with pytest.raises(InputError, match="24 tokens, and the model's context is 24"):
        continue_all(Generator(backbone), [[1] * 24], max_new_tokens=1)


def test_bfloat16_chooses_from_float32_log_probabilities():
    backbone = make_backbone(dtype="bfloat16")
    tokens, values = continue_all(Generator(backbone), PROMPTS[:1], max_new_tokens=4)[0]
    assert len(tokens) == 4
    assert values.dtype == np.float32 and np.all(values < 0)


def test_a_bidirectional_model_is_refused():
    with pytest.raises(InputError, match="causal"):
        continue_all(Generator(make_backbone(attention_mask="bidirectional")), PROMPTS)


def test_sizes_are_rounded_to_few():
    assert sorted({rounded_length(n) for n in range(1, 129)}) == [16, 24, 32, 48, 64, 96, 128]
    assert all(n <= rounded_length(n) <= max(16, 1.5 * n) for n in range(1, 3000))
    assert [rounded_rows(n) for n in (1, 2, 3, 5, 8, 9)] == [1, 2, 4, 8, 8, 16]


def test_prompts_are_padded_on_the_left_and_filler_rows_hold_one_token():
    token_ids, padding = pad_left([[1, 2, 3], [4]], rows=4)
    assert token_ids.shape == (4, 16)
    assert token_ids[0, -3:].tolist() == [1, 2, 3]
    assert padding.tolist() == [13, 15, 15, 15]


def test_scores_equal_a_log_softmax_of_all_logits(backbone):
    token_ids = np.random.default_rng(0).integers(0, 97, size=(3, 10)).astype("int32")
    hidden = backbone({"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)})
    logits = ops.convert_to_numpy(backbone.token_embedding(hidden, reverse=True)).astype("float64")
    expected = logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))
    places = np.array([0, 7, 12, 29], "int32")
    targets = np.array([5, 96, int(np.argmax(logits[1, 2])), 0], "int32")
    at = hidden_at(backbone, ops.convert_to_tensor(token_ids), ops.convert_to_tensor(places))
    values, greedy = score_tokens(backbone, at, ops.convert_to_tensor(targets))
    rows, columns = places // 10, places % 10
    np.testing.assert_allclose(
        ops.convert_to_numpy(values), expected[rows, columns, targets], atol=1e-5
    )
    likeliest = np.argmax(logits[rows, columns], axis=-1) == targets
    assert ops.convert_to_numpy(greedy).tolist() == likeliest.tolist()
    assert likeliest[2]


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="runs the tests below JAX itself")
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="pip install jax")
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_generation_and_sampling_on_jax(repository: Path):
    """The tests that tell backends apart, in a process of its own whose backend is JAX."""
    files = ["tests/models/test_generation.py", "tests/models/test_sampling.py"]
    # Each shape compiles for seconds under JAX, so not all of them.
    chosen = "changes0 or one_by_one or uncompiled or every_backend or log_softmax or per_row"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-k", chosen, *files],
        cwd=repository,
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        timeout=880,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
