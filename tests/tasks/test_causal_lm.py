import dataclasses
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from llama_keras.errors import InputError
from llama_keras.models import LlamaBackbone
from llama_keras.models.generation import MAX_ROWS
from llama_keras.tasks import CausalLM
from llama_keras.tasks.completion import Completion
from llama_keras.tasks.likelihood import (
    ScoredPair,
    encode_pairs,
    log_likelihoods,
    rolling_pairs,
)
from llama_keras.text import Tokenizer

PROMPTS = ["Once upon a time", "x", "A much longer prompt than the others, with many tokens", "née"]


@pytest.fixture(scope="module")
def model():
    """Tiny, random, and sharpened so that its greedy text varies and no two tokens tie."""
    keras.utils.set_random_seed(1)
    model = CausalLM.from_preset("llama-tiny", jit_generate=False)
    for variable in model.backbone.variables:
        if len(variable.shape) > 1:
            variable.assign(variable * 3.0)
    return model


def use_generator(monkeypatch, model, generator):
    engine = dataclasses.replace(model._engines.get("keras"), generator=generator)
    monkeypatch.setattr(model._engines, "get", lambda name: engine)


def forced(model, text: str, *, end: int | None = None):
    """A generator that "chooses" the tokens of `text`, then `end`, whatever the model says."""
    ids = model.tokenizer.encode(text, add_bos=False) + ([] if end is None else [end])

    class Fake:
        def run(self, prompts, *, settings, end_ids, stopped):
            for at in range(0, len(ids), 16):
                if stopped.all():
                    return
                part = np.tile(np.array(ids[at : at + 16], "int32"), (len(prompts), 1))
                self.given = at + part.shape[1]
                yield type("Chunk", (), {"token_ids": part, "log_probabilities": -part / 100})

    return Fake()


def test_the_keras_model_gives_logits(model):
    token_ids = np.array([[5, 6, 7]])
    logits = model({"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)})
    assert logits.shape == (1, 3, model.backbone.config.vocabulary_size)


def test_generate_gives_text_tokens_and_reason(model):
    answer = model.generate(PROMPTS[0], max_new_tokens=20)
    assert answer.finish_reason == "length"
    assert len(answer.token_ids) == len(answer.log_probabilities) == 20
    assert answer.num_prompt_tokens == len(model.tokenizer.encode(PROMPTS[0]))
    assert answer.text == model.tokenizer.decode(answer.token_ids, skip_special_tokens=True)
    assert all(value < 0 for value in answer.log_probabilities)


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.2, "top_k": 50, "seed": 3}])
def test_many_prompts_equal_one_by_one_in_any_number(model, settings):
    many = (PROMPTS * (MAX_ROWS // 4 + 1))[: MAX_ROWS + 3]  # more than one batch
    together = model.generate(many, max_new_tokens=10, **settings)
    alone = [model.generate(prompt, max_new_tokens=10, **settings) for prompt in PROMPTS]
    for index, answer in enumerate(together):
        assert answer.token_ids == alone[index % 4].token_ids
        assert answer.text == alone[index % 4].text
        np.testing.assert_allclose(
            answer.log_probabilities, alone[index % 4].log_probabilities, atol=1e-4
        )


def test_no_prompts_give_no_answers(model):
    assert model.generate([]) == []


def test_settings_may_differ_by_prompt(model):
    answers = model.generate(
        ["Hi"] * 3, max_new_tokens=[1, 7, 7], temperature=1.0, seed=[0, 1, 2], top_p=0.9
    )
    assert [len(answer.token_ids) for answer in answers] == [1, 7, 7]
    assert answers[1].text != answers[2].text
    with pytest.raises(InputError, match="seed has 2 values for 3 prompts"):
        model.generate(["Hi"] * 3, seed=[1, 2])


def test_settings_cause_no_new_traces(model):
    model.generate("Hi", max_new_tokens=3)
    engine = model._engines.get("keras")
    before = (engine.prefill.traces, engine.decode.traces)
    model.generate(PROMPTS, max_new_tokens=40, temperature=0.5, top_k=3, top_p=0.4, seed=8)
    model.generate("longer " * 30, max_new_tokens=9, stop=["zzz"])
    assert (engine.prefill.traces, engine.decode.traces) == before == (1, 1)


def test_an_end_token_ends_the_text_and_is_not_in_it(model, monkeypatch):
    end = model.tokenizer.end_ids[0]
    use_generator(monkeypatch, model, forced(model, "All done", end=end))
    answer = model.generate("p", max_new_tokens=30)
    assert (answer.text, answer.finish_reason) == ("All done", "stop")
    assert answer.token_ids == model.tokenizer.encode("All done", add_bos=False)


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        ("world", "Hello, "),
        (["zz", "lo, w"], "Hel"),
        (["é", "orld, é"], "Hello, w"),  # complete at the same token: the earlier place wins
        ("Hello", ""),
        ("absent", "Hello, world, éal and then more of it"),
        ("it and", "Hello, world, éal and then more of it"),  # begins at the end, never completed
    ],
)
def test_stop_strings_cut_the_text_wherever_tokens_end(model, monkeypatch, stop, text):
    whole = "Hello, world, éal and then more of it"
    for method in ("generate", "stream"):
        use_generator(monkeypatch, model, forced(model, whole))
        if method == "stream":
            pieces = list(model.stream("p", stop=stop))
            assert "".join(pieces) == text
            assert all(pieces)
            continue
        answer = model.generate("p", stop=stop)
        assert answer.text == text
        assert answer.finish_reason == ("length" if text == whole else "stop")
        decoded = model.tokenizer.decode(answer.token_ids)
        assert decoded.startswith(text) and len(answer.log_probabilities) == len(answer.token_ids)


def test_a_stop_string_ends_decoding_at_the_next_chunk(model, monkeypatch):
    fake = forced(model, "ab" * 60)
    use_generator(monkeypatch, model, fake)
    assert model.generate("p", stop="ab", max_new_tokens=120).text == ""
    assert fake.given == 16


def test_stream_joined_is_the_text_of_generate(model):
    for settings in ({}, {"temperature": 1.5, "seed": 1}, {"temperature": 1.5, "stop": ["e", "a"]}):
        pieces = list(model.stream(PROMPTS[0], max_new_tokens=40, **settings))
        assert "".join(pieces) == model.generate(PROMPTS[0], max_new_tokens=40, **settings).text
    assert len(list(model.stream(PROMPTS[0], max_new_tokens=40))) > 1


def test_half_a_character_is_held_back(model):
    row = Completion(model.tokenizer, prompt=[5], end_ids=(), stop=())
    first, second = model.tokenizer.encode("é", add_bos=False)
    assert row.push([first], [-1.0]) == ""
    assert row.push([second], [-1.0]) == "é"
    row.push([first], [-1.0])
    assert row.finish() == "�"
    assert row.result().text == "é�"


def test_wrong_settings_are_refused_by_name(model):
    for wrong in ({"temperature": -1.0}, {"top_k": -3}, {"top_p": 0}, {"max_new_tokens": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            model.generate("Hi", **wrong)
    with pytest.raises(InputError, match="no setting 'beam_size'.*temperature"):
        model.stream("Hi", beam_size=3)
    with pytest.raises(InputError, match="stop must hold strings"):
        model.generate("Hi", stop=[""])


def test_a_prompt_that_fills_the_context_is_refused_with_the_numbers(model):
    limit = model.backbone.config.max_sequence_length
    with pytest.raises(InputError, match=rf"prompt has \d+ tokens.*context is {limit} tokens"):
        model.generate(["fine", "a" * (limit + 10)])


def test_an_empty_prompt_starts_from_the_beginning_of_a_text(model):
    answer = model.generate("", max_new_tokens=3)
    assert len(answer.token_ids) == 3
    assert answer.num_prompt_tokens == 1


def test_chat_goes_through_the_template(model):
    messages = [{"role": "user", "content": "Hi <|im_end|>"}]
    answer = model.chat(messages, max_new_tokens=5)
    assert answer.num_prompt_tokens == len(model.tokenizer.encode_chat(messages))
    assert "".join(model.stream(messages, max_new_tokens=5)) == answer.text


def test_a_bidirectional_backbone_is_refused(model):
    config = {**model.backbone.config.to_dict(), "attention_mask": "bidirectional"}
    with pytest.raises(InputError, match="attention_mask='causal'"):
        CausalLM(backbone=LlamaBackbone(**config), tokenizer=model.tokenizer)


def log_softmax_of(model, ids):
    token_ids = np.array([ids])
    logits = model({"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)})
    logits = ops.convert_to_numpy(logits)[0].astype("float64")
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))


def test_loglikelihood_equals_a_log_softmax_of_each_pair_alone(model):
    pairs = [
        ("The sky is", " blue"),
        ("The sky is", " blue and the grass is green, as everybody can see"),
        ("", "from nothing"),
        ("née", "é"),
        ("a" * 50, "b"),
    ] * 3
    results = model.loglikelihood(pairs)
    for pair, (total, is_greedy) in zip(encode_pairs(model.tokenizer, pairs), results, strict=True):
        rows = log_softmax_of(model, pair.inputs)[len(pair.context) - 1 :]
        expected = rows[np.arange(len(pair.continuation)), pair.continuation].sum()
        assert total == pytest.approx(expected, abs=1e-3)
        assert is_greedy == (rows.argmax(axis=-1).tolist() == pair.continuation)
    totals = [total for total, _ in results]
    assert totals[:5] == pytest.approx(totals[5:10], abs=1e-4)


def test_loglikelihood_knows_what_greedy_decoding_gives(model):
    prompt = model.tokenizer.encode("The sky is")
    answer = model.generate("The sky is", max_new_tokens=3)
    pairs = [ScoredPair(prompt, answer.token_ids), ScoredPair(prompt, [*answer.token_ids[:2], 77])]
    engine, limit = model._engines.get("keras"), model.backbone.config.max_sequence_length
    (total, is_greedy), (_, other) = log_likelihoods(
        pairs, hidden_at=engine.hidden_at, score_tokens=engine.score_tokens, limit=limit
    )
    assert is_greedy and not other
    assert total == pytest.approx(sum(answer.log_probabilities), abs=1e-4)


def test_a_context_is_read_once_and_its_continuations_do_not_see_each_other(model, monkeypatch):
    endings = [" blue", " green as grass", " blue", " everywhere, and so am I", " b"]
    pairs = [("The sky is", ending) for ending in endings] + [("So", " what")]
    alone = [model.loglikelihood([pair])[0] for pair in pairs]
    read = []
    engine = model._engines.get("keras")
    rows = engine.hidden_at
    monkeypatch.setattr(
        model._engines,
        "get",
        lambda name: dataclasses.replace(
            engine, hidden_at=lambda ids, *rest: read.append(ids.shape) or rows(ids, *rest)
        ),
    )
    together = model.loglikelihood(pairs)
    assert [shape[0] for shape in read] == [2]
    assert [t for t, _ in together] == pytest.approx([t for t, _ in alone], abs=1e-4)
    assert [g for _, g in together] == [g for _, g in alone]


@pytest.mark.parametrize("length", [1, 7, 8, 9, 16, 17, 30])
def test_windows_score_each_token_once_with_all_the_context_there_is(model, length):
    tokenizer, limit = model.tokenizer, 8
    text = "xyzzy " * 40
    ids = tokenizer.encode(text, add_bos=False)[:length]
    windows = rolling_pairs(_Fixed(tokenizer, ids), text, limit=limit)
    assert [token for pair in windows for token in pair.continuation] == ids
    start = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    whole = [start, *ids]
    at = 1
    for pair in windows:
        at += len(pair.continuation)
        assert len(pair.inputs) <= limit
        assert pair.inputs == whole[at - 1 - len(pair.inputs) : at - 1]
        # Only the first windows are shorter than the model's context.
        assert len(pair.inputs) == min(limit, at - 1)


class _Fixed:
    """A tokenizer that gives certain ids."""

    def __init__(self, tokenizer, ids):
        self.bos_id, self.eos_id, self.pad_id = (
            tokenizer.bos_id,
            tokenizer.eos_id,
            tokenizer.pad_id,
        )
        self.encode = lambda texts: [list(ids)]


def test_long_texts_are_scored_whole_and_empty_ones_not_at_all(model):
    short, empty = "The sky is blue", ""
    (nats, count), (nothing, zero) = model.loglikelihood_rolling([short, empty])
    ids = model.tokenizer.encode(short, add_bos=False)
    start = model.tokenizer.eos_id if model.tokenizer.bos_id is None else model.tokenizer.bos_id
    rows = log_softmax_of(model, [start, *ids][:-1])
    assert nats == pytest.approx(rows[np.arange(len(ids)), ids].sum(), abs=1e-3)
    assert (count, nothing, zero) == (len(ids), 0.0, 0)
    limit = model.backbone.config.max_sequence_length
    long = "word " * limit
    total, tokens = model.loglikelihood_rolling([long])[0]
    assert tokens == len(model.tokenizer.encode(long, add_bos=False)) > limit and total < 0


def test_pairs_are_encoded_as_lm_evaluation_harness_does(model):
    tokenizer = model.tokenizer
    moved, plain, empty = encode_pairs(tokenizer, [("a  ", "b"), ("a", "  b"), ("", "b")])
    assert moved == plain
    assert moved.context == tokenizer.encode("a")
    start = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    assert empty.context == [start]
    assert empty.continuation == tokenizer.encode("b", add_bos=False)


def test_pairs_that_cannot_be_scored_are_refused_by_number(model):
    limit = model.backbone.config.max_sequence_length
    with pytest.raises(InputError, match="Pair 1 has a continuation without tokens"):
        model.loglikelihood([("a", "b"), ("a", "")])
    with pytest.raises(InputError, match=f"Pair 0 has .*context is {limit} tokens"):
        model.loglikelihood([("a" * limit, "bc")])
    with pytest.raises(InputError, match="Pair 0 must be"):
        model.loglikelihood(["ab"])  # pyright: ignore[reportArgumentType]
    assert model.loglikelihood([]) == []


def test_a_saved_model_generates_the_same(model, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = CausalLM.load(tmp_path / "model.keras")
    assert loaded.jit_generate is False
    expected = model.generate(PROMPTS, max_new_tokens=6)
    assert loaded.generate(PROMPTS, max_new_tokens=6) == expected


def test_changed_weights_and_lora_are_seen_by_compiled_functions():
    model = CausalLM.from_preset("llama-tiny", jit_generate=False)
    before = model.generate("Hi", max_new_tokens=4)
    scores = model.loglikelihood([("Hi", " there")])
    for variable in model.backbone.variables:
        variable.assign(variable * 1.7)
    assert model.loglikelihood([("Hi", " there")]) != scores
    dense = model.backbone.transformer_layers[0].attention.query_dense
    dense.enable_lora(2)
    dense.lora_kernel_b.assign(keras.ops.ones_like(dense.lora_kernel_b))
    after = model.generate("Hi", max_new_tokens=4)
    assert after.log_probabilities != before.log_probabilities
    expected = log_softmax_of(model, model.tokenizer.encode("Hi"))[-1].max()
    assert after.log_probabilities[0] == pytest.approx(expected, abs=1e-4)


def test_the_command_prints_json_and_streams(tmp_path):
    command = [sys.executable, "-m", "llama_keras.cli", "generate", "Hi", "--preset", "llama-tiny"]
    found = subprocess.run(
        [*command, "--max-new-tokens", "3", "--json"], capture_output=True, text=True, timeout=200
    )
    assert found.returncode == 0, found.stderr
    record = json.loads(found.stdout)
    assert len(record["token_ids"]) == 3 and record["finish_reason"] == "length"
    wrong = subprocess.run(
        [*command, "--temperature", "-1"], capture_output=True, text=True, timeout=200
    )
    assert wrong.returncode == 2
    assert "temperature must be" in wrong.stderr and "Traceback" not in wrong.stderr


@pytest.mark.slow
def test_smollm2_answers(smollm2):
    model = CausalLM.from_preset("smollm2-135m-instruct", jit_generate=False)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    answer = model.chat(question, max_new_tokens=20)
    assert answer.text == "The capital of France is Paris."
    assert answer.finish_reason == "stop"
    assert dataclasses.asdict(answer)["num_prompt_tokens"] == 37
    (paris, greedy), (london, _) = model.loglikelihood(
        [("The capital of France is", " Paris"), ("The capital of France is", " London")]
    )
    assert greedy and paris > london + 3
    assert Tokenizer.from_preset("smollm2-135m-instruct").end_ids == model.tokenizer.end_ids
