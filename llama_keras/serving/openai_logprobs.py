"""How likely each token of a prompt and its answer is, in the two shapes that OpenAI's API has."""

import codecs
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .chat_decoding import MAX_ROWS, Answer
from .chat_text import ChatText, run
from .served import Servable, ServedModels


@dataclass(frozen=True)
class TokenScores:
    """Of one row of tokens, the first of which nothing predicts.

    Attributes:
        values: log-probability of each token but the first, in nats.
        top_ids: the likeliest tokens after each token, likeliest first: as many lists as tokens.
        top_values: their log-probabilities.
    """

    values: list[float]
    top_ids: list[list[int]]
    top_values: list[list[float]]


async def score(
    served: ServedModels, servable: Servable, rows: Sequence[Sequence[int]]
) -> list[TokenScores]:
    """Gives the scores of rows of token ids, none empty, each within the model's context."""
    found: list[TokenScores] = []
    for start in range(0, len(rows), MAX_ROWS):
        found += await _score(served, servable, rows[start : start + MAX_ROWS])
    return found


async def _score(
    served: ServedModels, servable: Servable, rows: Sequence[Sequence[int]]
) -> list[TokenScores]:
    length = max(map(len, rows))
    token_ids, mask = (np.zeros((len(rows), length), "int32") for _ in range(2))
    for index, row in enumerate(rows):
        token_ids[index, : len(row)], mask[index, : len(row)] = row, 1
    found = await run(served, servable, "token_scores", token_ids=token_ids, padding_mask=mask)
    return [
        TokenScores(
            found["next_log_probability"][index, : len(row) - 1].tolist(),
            found["top_token_ids"][index, : len(row)].tolist(),
            found["top_log_probability"][index, : len(row)].tolist(),
        )
        for index, row in enumerate(rows)
    ]


async def scores_so_far(
    served: ServedModels,
    servable: Servable,
    prompt: Sequence[int],
    answer: Answer,
    *,
    top: int,
    with_prompt: bool,
) -> TokenScores:
    """Gives the scores of a prompt and what has come of its answer, while that grows.

    Args:
        served, servable: who runs it.
        prompt: token ids.
        answer: with the log-probabilities that decoding found.
        top: how many of the likeliest tokens are told; where any is, all is read anew.
        with_prompt: whether the prompt's own scores are told; else they are NaN, unless read.
    """
    whole = [*prompt, *answer.token_ids]
    if top or with_prompt:
        (found,) = await score(served, servable, [whole])
        return found
    values = [math.nan] * (len(prompt) - 1) + answer.log_probabilities
    return TokenScores(values, [[]] * len(whole), [[]] * len(whole))


def token_texts(
    chat: ChatText, ids: Sequence[int], *, hidden: frozenset[int], ended: bool = True
) -> list[list[Any]]:
    """Gives the text of each token and the character at which it begins: lists of two.

    A character of several tokens is the text of the last of them; the ones before have none.
    What is left of one at the end is U+FFFD, unless more tokens are to come.

    Args:
        chat: the export's tokenizer.
        ids: the tokens.
        hidden: places of tokens that are no part of the text; they are called by their names.
        ended: whether no more tokens are to come.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    at, at_start, found = 0, True, []
    for place, token_id in enumerate(ids):
        data = chat.text_of(token_id, at_start=at_start, skip_special_tokens=False)
        at_start = chat.is_special(token_id)
        text = data.decode("utf-8", "replace") if place in hidden else decoder.decode(data)
        found.append([text, at])
        at += 0 if place in hidden else len(text)
    if found and ended and (rest := decoder.decode(b"", final=True)):
        found[-1][0] += rest
    return found


def completion_logprobs(
    chat: ChatText,
    ids: Sequence[int],
    scores: TokenScores,
    *,
    first: int,
    top: int,
    hidden: frozenset[int],
    begin: int | None = None,
    ended: bool = True,
) -> dict[str, list[Any]]:
    """Gives the `logprobs` of a choice of `/v1/completions`, or of a part of one in a stream.

    Args:
        chat: the export's tokenizer.
        ids: prompt and answer.
        scores: of `ids`.
        first: place of the first token that is told of.
        top: how many of the likeliest tokens are told.
        hidden, ended: see `token_texts`.
        begin: place of the token with which the choice's text begins; None: it is `first`.
    """
    texts = token_texts(chat, ids, hidden=hidden, ended=ended)
    begin = first if begin is None else begin
    start = texts[begin][1] if begin < len(texts) else 0
    places = range(first, len(ids))
    return {
        "tokens": [texts[place][0] for place in places],
        "token_logprobs": [scores.values[p - 1] if p else None for p in places],
        "text_offset": [texts[place][1] - start for place in places],
        "top_logprobs": [
            _top_by_text(chat, ids[p], scores, p, top=top) if p else None for p in places
        ],
    }


def _top_by_text(chat: ChatText, token_id: int, scores: TokenScores, place: int, *, top: int):
    """Gives the likeliest tokens by text, and the one that stands there, as OpenAI does."""
    found: dict[str, float] = {}
    before = place - 1
    pairs = list(zip(scores.top_ids[before], scores.top_values[before], strict=True))[:top]
    for id_, value in [*pairs, (token_id, scores.values[before])]:
        # Should two ids have one text, the likelier one counts.
        found.setdefault(_name(chat.piece(id_)), value)
    return found


def _name(piece: bytes) -> str:
    """Gives a token's text; a part of a character is spelled as OpenAI does."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def chat_logprobs(
    chat: ChatText, ids: Sequence[int], scores: TokenScores, *, first: int, top: int
) -> dict[str, Any]:
    """Gives the `logprobs` of a choice of `/v1/chat/completions`; arguments as above."""

    def entry(token_id: int, value: float) -> dict[str, Any]:
        data = chat.piece(token_id)
        return {"token": data.decode("utf-8", "replace"), "logprob": value, "bytes": list(data)}

    content = []
    for place in range(first, len(ids)):
        before = place - 1
        pairs = zip(scores.top_ids[before][:top], scores.top_values[before][:top], strict=True)
        likeliest = [entry(id_, value) for id_, value in pairs]
        content.append({**entry(ids[place], scores.values[before]), "top_logprobs": likeliest})
    return {"content": content, "refusal": None}
