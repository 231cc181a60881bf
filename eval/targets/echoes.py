"""Log-probabilities out of a completion that echoes its prompt."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

from llama_keras.errors import InputError
from llama_keras.eval.requests import Answer

_WHY = (
    "Without the log-probabilities of the prompt every choice would score the same. Take a server "
    "that answers `echo` with `logprobs` (vLLM, llama-cpp-python with logits_all), a Keras model "
    "or an export."
)


def scored(choice: dict[str, Any], context: str, continuation: str, location: str) -> Answer:
    """Gives how likely a continuation is.

    As in lm-evaluation-harness spaces that end the context belong to the continuation, and a token
    that begins in the context belongs to the context.

    Args:
        choice: one of the answer's, with `text`, and `logprobs` with `tokens`, `token_logprobs`,
            `text_offset` (characters) and `top_logprobs`.
        context, continuation: whose texts together were the prompt.
        location: of the server, for messages.

    Raises:
        InputError: the prompt's text or its log-probabilities are not there.
    """
    prompt = context + continuation
    text = choice.get("text")
    if not isinstance(text, str) or not text.startswith(prompt):
        raise InputError(f"{location} did not echo the prompt. {_WHY}")
    tokens, logprobs, offsets, top = _columns(choice.get("logprobs"), location)
    # A token that begins a text is no part of it, and its spelling may count in the offsets.
    begins = len(tokens) > 1 and not prompt.startswith(tokens[0])
    shift = offsets[1] if begins else offsets[0]
    starts = [offset - shift for offset in offsets]
    first = len(context.rstrip())
    chosen = [at for at, start in enumerate(starts) if first <= start < len(prompt)]
    chosen = [at for at in chosen if not (begins and at == 0)]
    if not chosen:
        raise InputError(
            f"{location} read {prompt[-80:]!r} as tokens of which none begins in the continuation; "
            "give it more text."
        )
    values = [logprobs[at] for at in chosen]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        if chosen[0] == 0 and all(value is not None for value in values[1:]):
            raise InputError(
                f"{location} does not tell how likely the first token of a text is, and a context "
                "is empty; give it some text."
            )
        raise InputError(f"{location} gave no log-probabilities of the prompt. {_WHY}")
    known = [value for value in logprobs[: chosen[-1] + 1] if value is not None]
    if not any(known):
        raise InputError(f"{location} gave log-probabilities of the prompt that are all 0. {_WHY}")
    return {
        "logprob": math.fsum(values),
        "is_greedy": all(
            _is_best(value, top[at]) for value, at in zip(values, chosen, strict=True)
        ),
        "num_tokens": len(chosen),
    }


def _columns(found: Any, location: str) -> tuple[list[str], list[Any], list[int], list[Any]]:
    names = ("tokens", "token_logprobs", "text_offset", "top_logprobs")
    columns = [found.get(name) if isinstance(found, dict) else None for name in names]
    lists = [column for column in columns if isinstance(column, list)]
    good = len(lists) == len(names) and len({len(column) for column in lists}) == 1 and lists[0]
    if not good or not _all_are(str, lists[0]) or not _all_are(int, lists[2]):
        shown = sorted(found) if isinstance(found, dict) else found
        raise InputError(
            f"{location} gave no log-probabilities with {', '.join(names)}, of one length, but "
            f"{str(shown)[:120]}. {_WHY}"
        )
    if any(after < before for before, after in itertools.pairwise(lists[2])):
        raise InputError(f"{location} gave text offsets that go back. {_WHY}")
    return lists[0], lists[1], lists[2], lists[3]


def _all_are(kind: type, values: Sequence[Any]) -> bool:
    return all(isinstance(value, kind) for value in values)


def _is_best(value: float, top: Any) -> bool:
    """Whether no token was likelier; servers round what they give."""
    others = list(top.values()) if isinstance(top, dict) else []
    numbers = [other for other in others if isinstance(other, int | float)]
    return bool(numbers) and value >= max(numbers) - 1e-6
