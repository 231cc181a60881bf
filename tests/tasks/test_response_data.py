import dataclasses

import pytest

from llama_keras.tasks.response_data import weigh_conversations
from llama_keras.text import Tokenizer

# As SmolLM2's: a system prompt of the template's own before the first turn.
DEFAULT_SYSTEM = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<system>You are a help.\n{% endif %}"
    "<{{ message['role'] }}>{{ message['content'] }}\n"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = Tokenizer.from_preset("llama-tiny")
    tokenizer._set_spec(dataclasses.replace(tokenizer.spec, chat_template=DEFAULT_SYSTEM))
    return tokenizer


def learned(tokenizer, *turns):
    messages = [{"role": role, "content": content} for role, content in turns]
    ((ids, weights),) = weigh_conversations(tokenizer, [messages])
    assert ids == tokenizer.encode_chat(messages, add_generation_prompt=False)
    return tokenizer.decode([i for i, weight in zip(ids, weights, strict=True) if weight])


@pytest.mark.parametrize("words", ["Hello!", "0", "01", "1", " 0 spaces", "é"])
def test_of_an_opening_by_the_assistant_its_own_words_count(tokenizer, words):
    assert learned(tokenizer, ("assistant", words)) == f"{words}\n"
    told = learned(tokenizer, ("assistant", words), ("user", "Hi"), ("assistant", "Yes?"))
    assert told == f"{words}\nYes?\n"


def test_a_system_prompt_before_the_opening_does_not_count(tokenizer):
    assert learned(tokenizer, ("system", "Be kind."), ("assistant", "Hello!")) == "Hello!\n"


def test_the_system_prompt_of_smollm2_is_not_learned(smollm2):
    tokenizer = Tokenizer.from_preset(str(smollm2))
    turns = ("assistant", "Hello!"), ("user", "Hi."), ("assistant", "0.")
    assert learned(tokenizer, *turns) == "Hello!<|im_end|>\n0.<|im_end|>\n"
    assert "You are a helpful" in tokenizer.apply_chat_template(
        [{"role": "assistant", "content": "Hello!"}]
    )
