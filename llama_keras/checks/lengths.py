"""Checks of how many tokens texts have, against what the model takes."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from llama_keras.checks.records import Data, Example, Finding, first_shown, share
from llama_keras.errors import InputError

# Texts that are tokenized; of more, so many are taken at even distances.
AT_MOST = 20_000
# Where more of the texts are cut than not, `max_sequence_length` is wrong for them.
_FAIL = 0.5
Item = TypeVar("Item")


class Measured(NamedTuple):
    """Tokens of N examples."""

    tokens: np.ndarray
    """Tokens of each, uncut, int64 `(N,)`."""
    is_cut: np.ndarray
    """Whether some are lost, bool `(N,)`."""
    rule: str
    """What cuts, for people."""
    note: str = ""
    """What else there is to say."""


def check_lengths(data: Data) -> Finding | None:
    """Measures texts in tokens, and finds those that are cut."""
    if not data.examples:
        return None
    chosen = evenly(data.examples)
    try:  # the preset may be missing here, or have no chat template
        found = MEASURES[data.recipe.task](data, data.tokenizer, chosen)
    except (InputError, ImportError) as error:
        return Finding("warn", f"not measured: {' '.join(str(error).split())}")
    cut = np.flatnonzero(found.is_cut)
    longest = cut[np.argsort(-found.tokens[cut], kind="stable")]
    sampled = f"; measured on {AT_MOST:,} of {len(data.examples):,}, evenly taken"
    text, details = spread(found.tokens)
    level = "fail" if len(cut) >= _FAIL * len(chosen) else "warn" if len(cut) else "good"
    return Finding(
        level,
        f"{text} tokens; {share(len(cut), len(chosen))} are cut ({found.rule}){found.note}"
        + sampled * (len(chosen) < len(data.examples)),
        len(cut),
        first_shown(_measured(chosen[at], found.tokens[at]) for at in longest),
        {**details, "cut": len(cut), "measured": len(chosen)},
    )


def _measured(example: Example, tokens) -> tuple[str, str]:
    where, text = example.shown()
    return where, f"{text} ({tokens:,} tokens)"


def evenly(items: Sequence[Item]) -> list[Item]:
    """Gives at most `AT_MOST` of the items, at even distances."""
    if len(items) <= AT_MOST:
        return list(items)
    return [items[at] for at in np.linspace(0, len(items) - 1, AT_MOST).astype(int)]


def spread(lengths: Any) -> tuple[str, dict[str, int]]:
    """Gives median, 95th percentile and maximum, for people and for machines."""
    if not len(lengths):
        return "no", {}
    # As they occur: no half tokens between two lengths.
    median, p95 = np.percentile(lengths, [50, 95], method="higher").astype(int).tolist()
    found = {"median": median, "p95": p95, "max": int(np.max(lengths))}
    return ", ".join(f"{name} {value:,}" for name, value in found.items()), found


def count_tokens(tokenizer, texts: list[str], **rules) -> np.ndarray:
    """Gives the tokens of each text, int64 `(N,)`; each distinct text is tokenized once."""
    distinct = list(dict.fromkeys(texts))
    rows = tokenizer.encode(distinct, **rules) if distinct else []
    sizes = {text: len(row) for text, row in zip(distinct, rows, strict=True)}
    return np.array([sizes[text] for text in texts], "int64")


def _columns(data: Data, examples: list[Example]) -> list[list[str]]:
    """Gives first texts, second texts, …, cleaned; a text that is missing is empty."""
    width = max(len(example.texts) for example in examples)
    return [data.clean([(*x.texts, *[""] * width)[at] for x in examples]) for at in range(width)]


def _labelled(data: Data, tokenizer, examples: list[Example]) -> Measured:
    limit, columns = data.recipe.model.max_sequence_length, _columns(data, examples)
    if len(columns) == 1:
        tokens = count_tokens(tokenizer, columns[0])
    else:  # as data.text_pairs
        spec = tokenizer.spec
        sizes = [
            count_tokens(tokenizer, column, add_bos=False, add_eos=False) for column in columns
        ]
        tokens = np.sum(sizes, axis=0) + int(spec.add_bos) + 1 + int(spec.add_eos)
    return Measured(tokens, tokens > limit, f"max_sequence_length={limit}")


def _responses(data: Data, tokenizer, examples: list[Example]) -> Measured:
    """As `tasks.response_data`."""
    limit, around = data.recipe.model.max_sequence_length, data.recipe.data
    if around.turns_column is not None:
        chats = [
            tokenizer.apply_chat_template(x.target, add_generation_prompt=False) for x in examples
        ]
        tokens = count_tokens(tokenizer, chats, parse_special=True, add_bos=False, add_eos=False)
        return Measured(tokens, tokens > limit, f"max_sequence_length={limit}")
    prompts = [around.prompt.replace("{text}", x.texts[0]) for x in examples]
    responses = [around.response.replace("{label}", x.texts[1]) for x in examples]
    asked = count_tokens(tokenizer, prompts)
    said = count_tokens(tokenizer, responses, add_bos=False, add_eos=tokenizer.eos_id is not None)
    tokens, silent = asked + said, int((asked >= limit).sum())
    note = f", {silent:,} of them before the response begins" * bool(silent)
    return Measured(tokens, tokens > limit, f"max_sequence_length={limit}", note)


def _longest(data: Data, tokenizer, examples: list[Example]) -> Measured:
    limit = data.recipe.model.max_sequence_length
    tokens = np.max(
        [count_tokens(tokenizer, column) for column in _columns(data, examples)], axis=0
    )
    rule = f"max_sequence_length={limit}; of each row the longest text counts"
    return Measured(tokens, tokens > limit, rule)


def _sentences(data: Data, tokenizer, examples: list[Example]) -> Measured:
    limit = data.recipe.model.max_sequence_length
    tokens = count_tokens(tokenizer, _columns(data, examples)[0])
    several = int((tokens > limit).sum())
    return Measured(
        tokens,
        np.zeros(len(tokens), bool),
        f"{share(several, len(tokens))} are read in windows of {limit}",
    )


def _questions(data: Data, tokenizer, examples: list[Example]) -> Measured:
    """As `data.context_windows`: a question is cut, a context is read in windows."""
    limit, room = data.recipe.answers.max_question_tokens, data.recipe.model.max_sequence_length
    questions, contexts = _columns(data, examples)
    asked = count_tokens(tokenizer, questions, add_eos=False)
    read = count_tokens(tokenizer, contexts, add_bos=False, add_eos=False)
    several = int((np.minimum(asked, limit) + 2 + read > room).sum())
    rule = f"questions, at max_question_tokens={limit}"
    note = f"; {share(several, len(read))} are read in windows of {room}"
    return Measured(asked + read, asked > limit, rule, note)


MEASURES: dict[str, Callable[[Data, Any, list[Example]], Measured]] = {
    "causal_lm": _responses,
    "embedding": _longest,
    "question_answering": _questions,
    "text_classification": _labelled,
    "token_classification": _sentences,
}
