"""Fine-tuning a `CausalLM`: what counts, and that it is learned."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from llama_keras.errors import InputError
from llama_keras.tasks import CausalLM
from llama_keras.tasks.response_data import weigh_conversations, weigh_responses, weigh_texts
from llama_keras.training.fine_tuning import Full, Lora

PROMPTS = ["The sky is", "Grass is", "Snow is", "Coal is"] * 8
ANSWERS = [" blue.", " green.", " white.", " black."] * 8
FAST = Full(learning_rate=5e-3)


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return CausalLM.from_preset("llama-tiny", strategy=FAST, jit_generate=False)


def spelled(tokenizer, row):
    ids, weights = row
    return tokenizer.decode([i for i, weight in zip(ids, weights, strict=True) if weight])


def test_responses_alone_count_with_their_end(model):
    tokenizer = model.tokenizer
    (row,) = weigh_responses(tokenizer, ["The sky is"], [" blue."])
    assert row[0] == [*tokenizer.encode("The sky is"), *row[0][-7:]]
    assert sum(row[1]) == 7 and row[0][-1] == tokenizer.eos_id  # six bytes and the end
    assert spelled(tokenizer, row).startswith(" blue.")
    ((ids, weights),) = weigh_texts(tokenizer, ["Hi"])
    assert weights == [1] * len(ids) and ids[-1] == tokenizer.eos_id


def test_loss_and_accuracy_are_those_of_the_counted_tokens(model):
    rows = weigh_responses(model.tokenizer, PROMPTS[:3], [" blue.", " a much longer one", ""])
    nats, hits, tokens = 0.0, 0, 0
    for ids, weights in rows:
        x = np.array([ids])
        logits = model({"token_ids": x, "padding_mask": np.ones_like(x)})[0]
        log_p = keras.ops.convert_to_numpy(keras.ops.log_softmax(logits, axis=-1))
        for at in range(1, len(ids)):
            if weights[at]:
                nats -= log_p[at - 1, ids[at]]
                hits += log_p[at - 1].argmax() == ids[at]
                tokens += 1
    texts = PROMPTS[:3], [" blue.", " a much longer one", ""]
    found = model.evaluate(*texts, verbose=0)
    assert found["loss"] == pytest.approx(nats / tokens, rel=1e-5)
    assert found["accuracy"] == pytest.approx(hits / tokens)
    assert found["perplexity"] == pytest.approx(np.exp(nats / tokens), rel=1e-4)
    by_example = model.score_examples(*texts)
    np.testing.assert_allclose(by_example.sum(axis=0), [nats, tokens, hits], rtol=1e-5)
    one = model.score_examples(PROMPTS[1:2], [" a much longer one"])
    np.testing.assert_allclose(by_example[1], one[0], rtol=1e-4)


# LoRA leaves the random model's small, tied embedding as it is: its logits stay close together.
@pytest.mark.parametrize(
    ("strategy", "share"),
    [
        pytest.param(FAST, 0.3, id="full"),
        pytest.param(Lora(learning_rate=5e-3), 0.85, id="lora", marks=pytest.mark.slow),
    ],
)
def test_responses_are_learned_and_then_generated(strategy, share):
    keras.utils.set_random_seed(0)
    model = CausalLM.from_preset("llama-tiny", strategy=strategy, jit_generate=False)
    before = model.evaluate(PROMPTS, ANSWERS, verbose=0)["loss"]
    history = model.fit(
        PROMPTS, ANSWERS, validation_data=(PROMPTS, ANSWERS), epochs=25, batch_size=8, verbose=0
    ).history
    assert history["val_loss"][-1] < share * before
    assert history["val_accuracy"][-1] > 0.9
    answers = model.generate(PROMPTS[:4], max_new_tokens=10)
    right = [a.text == wanted for a, wanted in zip(answers, ANSWERS, strict=False)]
    assert sum(right) >= 3
    assert answers[0].finish_reason == "stop"


def test_texts_and_datasets_are_taken(model):
    texts = ["Rain falls in May."] * 16
    history = model.fit(texts, epochs=3, batch_size=8, verbose=0).history["loss"]
    assert history[-1] < history[0]
    pairs = tf.data.Dataset.from_tensor_slices((PROMPTS, ANSWERS)).batch(4)
    expected = model.evaluate(PROMPTS, ANSWERS, verbose=0)
    assert model.evaluate(pairs, verbose=0)["loss"] == pytest.approx(expected["loss"], rel=1e-5)


CHAT = [
    {"role": "user", "content": "Hi <|im_end|>"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "See you."},
]


def test_of_conversations_the_assistants_words_count(smollm2):
    from llama_keras.text import Tokenizer

    tokenizer = Tokenizer.from_preset(str(smollm2))
    (row,) = weigh_conversations(tokenizer, [CHAT])
    assert row[0] == tokenizer.encode_chat(CHAT, add_generation_prompt=False)
    assert spelled(tokenizer, row) == "Hello!<|im_end|>\nSee you.<|im_end|>\n"


def test_what_teaches_nothing_is_told(model, caplog):
    long = "x" * 400
    rows = model.example_rows([long, "a"], ["y", "b"])
    assert len(rows.token_ids) == 1
    assert "1 of 2 examples were cut to 256 tokens" in caplog.text
    assert "1 of 2 examples have no token to learn" in caplog.text
    with pytest.raises(InputError, match="No example has a token to learn within"):
        model.fit([long], ["y"], verbose=0)
    with pytest.raises(InputError, match="2 prompts but 1 responses"):
        model.fit(["a", "b"], ["c"], verbose=0)
    with pytest.raises(InputError, match="data set is empty"):
        model.fit([], [], verbose=0)
    with pytest.raises(InputError, match="response number 0 must be a string"):
        model.fit(["a"], [3], verbose=0)
    with pytest.raises(InputError, match="has no linear_probe"):
        CausalLM(backbone=model.backbone, tokenizer=model.tokenizer, strategy="linear_probe").fit(
            PROMPTS, ANSWERS, verbose=0
        )
    with pytest.raises(InputError, match="leave the responses out"):
        model.fit([CHAT], ["x"], verbose=0)


def test_a_conversation_without_an_assistant_is_refused(smollm2):
    from llama_keras.text import Tokenizer

    tokenizer = Tokenizer.from_preset(str(smollm2))
    with pytest.raises(InputError, match="Conversation 1 has no turn with the role 'assistant'"):
        weigh_conversations(tokenizer, [CHAT, CHAT[:1]])


def test_a_fitted_model_is_saved_whole(model, tmp_path):
    model.fit(PROMPTS, ANSWERS, epochs=1, batch_size=8, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = CausalLM.load(tmp_path / "model.keras")
    assert loaded.strategy == model.strategy
    assert loaded.evaluate(PROMPTS, ANSWERS, verbose=0) == pytest.approx(
        model.evaluate(PROMPTS, ANSWERS, verbose=0), rel=1e-5
    )
