"""What a `CausalLM` learns from: texts, prompts with their responses, or conversations.

Each becomes token ids, and for each of them 1 where its prediction counts, else 0.
"""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from llama_keras.errors import InputError

Weighted = tuple[list[int], list[int]]


def is_conversation(example: Any) -> bool:
    """Says whether an example is a list of messages with "role" and "content"."""
    return (
        isinstance(example, Sequence)
        and not isinstance(example, (str, bytes))
        and len(example) > 0
        and all(isinstance(turn, Mapping) for turn in example)
    )


def weigh_texts(tokenizer, texts: Sequence[str]) -> list[Weighted]:
    """Gives plain texts, every token counted, with an end token where there is one."""
    rows = tokenizer.encode(list(texts), add_eos=_has_end(tokenizer))
    return [(row, [1] * len(row)) for row in rows]


def weigh_responses(tokenizer, prompts: Sequence[str], responses: Sequence[str]) -> list[Weighted]:
    """Gives prompt, response and end token, of which the response and the end count.

    The two are tokenized apart, as `generate` tokenizes a prompt on its own.

    Raises:
        InputError: the numbers differ, or something is no string.
    """
    if len(prompts) != len(responses):
        raise InputError(f"There are {len(prompts)} prompts but {len(responses)} responses.")
    for name, texts in (("prompt", prompts), ("response", responses)):
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"The {name} number {row} must be a string; received {text!r}.")
    if not prompts:
        return []
    before = tokenizer.encode(list(prompts))
    after = tokenizer.encode(list(responses), add_bos=False, add_eos=_has_end(tokenizer))
    return [(a + b, [0] * len(a) + [1] * len(b)) for a, b in zip(before, after, strict=True)]


def weigh_conversations(tokenizer, conversations: Sequence[Any]) -> list[Weighted]:
    """Gives conversations through the chat template; what the assistant says counts.

    Raises:
        InputError: no turn is the assistant's, or the template rewrites earlier turns.
    """
    return [_conversation(tokenizer, turns, row) for row, turns in enumerate(conversations)]


def _conversation(tokenizer, messages: Sequence[Mapping[str, Any]], row: int) -> Weighted:
    whole = tokenizer.encode_chat(messages, add_generation_prompt=False)
    weights = [0] * len(whole)
    for at, message in enumerate(messages):
        if message.get("role") != "assistant":
            continue
        before = tokenizer.encode_chat(messages[:at]) if at else _before_opening(tokenizer, message)
        after = tokenizer.encode_chat(messages[: at + 1], add_generation_prompt=False)
        if whole[: len(after)] != after or after[: len(before)] != before:
            raise InputError(
                f"Conversation {row}: the chat template changes earlier turns when later ones "
                "follow, so the assistant's tokens cannot be told apart."
            )
        weights[len(before) : len(after)] = [1] * (len(after) - len(before))
    if not any(weights):
        raise InputError(f"Conversation {row} has no turn with the role 'assistant' to learn from.")
    return whole, weights


def _before_opening(tokenizer, message: Mapping[str, Any]) -> list[int]:
    """Gives what a template puts before a conversation's first words, such as a system prompt.

    No turns cannot be rendered, so it is what two openings with different words have in common.
    """
    content = message.get("content")
    words = "1" if str(content).lstrip().startswith("0") else "0"
    openings = [
        tokenizer.encode_chat([opening], add_generation_prompt=False)
        for opening in (message, {**message, "content": words})
    ]
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(*openings, strict=False))
    return [token_id for token_id, _ in pairs]


def _has_end(tokenizer) -> bool:
    return tokenizer.eos_id is not None
