"""`POST /v1/completions`: texts continued, and how likely given texts are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from .chat_decoding import (
    Answer,
    Row,
    answer_of_one,
    answer_scored,
    answer_stepwise,
    answer_whole,
)
from .chat_text import Chats, ChatText
from .openai_answers import check_length, head_of, json_response, rows_of, stream, usage_of
from .openai_errors import OpenAiError
from .openai_logprobs import TokenScores, completion_logprobs, score, scores_so_far
from .openai_schema import CompletionRequest
from .served import Servable


@dataclass(frozen=True)
class _Prompt:
    ids: list[int]
    text: str
    hidden: frozenset[int]  # places of tokens that are no part of the text


async def answer_completion(chats: Chats, asked: CompletionRequest) -> Response:
    """Gives the answer to a request."""
    if asked.stream:
        return await stream(_events(chats, asked))
    with chats.served.use(asked.model) as servable:
        chat = await chats.of(servable)
        prompts = await _prompts(chats, servable, chat, asked)
        ids = [prompt.ids for prompt in prompts]
        rows, answers, scores = await _answers(chats, servable, chat, asked, ids)
        each = asked.n or 1
        choices = [
            {
                "text": prompts[index // each].text * bool(asked.echo) + answer.text,
                "index": index,
                "logprobs": None
                if scores is None
                else _logprobs(chat, asked, prompts[index // each], answer, scores[index]),
                "finish_reason": answer.finish_reason,
            }
            for index, answer in enumerate(answers)
        ]
        head = head_of("text_completion", "cmpl", servable)
        return json_response({**head, "choices": choices, "usage": usage_of(ids, answers)})


async def _events(chats: Chats, asked: CompletionRequest):
    with chats.served.use(asked.model) as servable:
        chat = await chats.of(servable)
        prompts = await _prompts(chats, servable, chat, asked)
        ids = [prompt.ids for prompt in prompts]
        head = head_of("text_completion", "cmpl", servable)
        head |= {"usage": None} if asked.with_usage else {}
        each = asked.n or 1

        def event(index: int, text: str, reason: str | None, logprobs: Any) -> dict[str, Any]:
            choice = {"text": text, "index": index, "logprobs": logprobs, "finish_reason": reason}
            return {**head, "choices": [choice]}

        total = [Answer("", [], [], None) for _ in range(len(ids) * each)]
        rest = _Rest(chats, servable, chat, asked)
        if asked.limit:
            rows = rows_of(asked, chat, ids, limit=asked.limit)
            news = answer_stepwise(chats.served, servable, rows, stop=asked.stops, chat=chat)
        else:
            for prompt in ids:
                check_length(prompt, chat, new=0)
            news = _nothing(len(total))
        echoed = set()
        async for index, new in news:
            total[index].add(new)
            text = new.text
            if asked.echo and index not in echoed:
                echoed.add(index)
                text = prompts[index // each].text + text
            if text or new.finish_reason:
                logprobs = await rest.told(index, prompts[index // each], total[index])
                yield event(index, text, new.finish_reason, logprobs)
        if asked.with_usage:
            yield {**head, "choices": [], "usage": usage_of(ids, total)}


class _Rest:
    """Tells of each token of a stream's choices once, with the text that comes next."""

    def __init__(self, chats: Chats, servable: Servable, chat: ChatText, asked: CompletionRequest):
        self._chats, self._servable, self._chat, self._asked = chats, servable, chat, asked
        self._next: dict[int, int] = {}

    async def told(self, index: int, prompt: _Prompt, answer: Answer) -> dict[str, Any] | None:
        """Gives the `logprobs` of what is new of a choice, None where nobody asked for them."""
        asked, length = self._asked, len(prompt.ids)
        first = self._next.get(index, 0 if asked.echo else length)
        end = length + len(answer.token_ids)
        if asked.logprobs is None or first == end:
            return None
        scores = await scores_so_far(
            self._chats.served,
            self._servable,
            prompt.ids,
            answer,
            top=asked.logprobs,
            with_prompt=first < length,
        )
        self._next[index] = end
        return _logprobs(self._chat, asked, prompt, answer, scores, first=first)


async def _nothing(rows: int):
    for index in range(rows):
        yield index, Answer("", [], [], "length")


async def _prompts(
    chats: Chats, servable: Servable, chat: ChatText, asked: CompletionRequest
) -> list[_Prompt]:
    texts = [part for part in asked.prompts if isinstance(part, str)]
    hidden = frozenset({0} if chat.adds_bos() else ())
    if texts:
        rows = await chat.encode(chats.served, servable, texts)
        return [_Prompt(row, text, hidden) for row, text in zip(rows, texts, strict=True)]
    found = []
    for row in asked.prompts:
        ids = [id_ for id_ in row if isinstance(id_, int)]
        if max(ids) >= len(chat.pieces) - 1:
            raise OpenAiError(
                400,
                f"Token ids are below {len(chat.pieces) - 1}; got {max(ids)}.",
                param="prompt",
                code="invalid_value",
            )
        data = b"".join(map(chat.piece, ids))
        found.append(_Prompt(ids, data.decode("utf-8", "replace"), frozenset()))
    return found


async def _answers(
    chats: Chats,
    servable: Servable,
    chat: ChatText,
    asked: CompletionRequest,
    prompts: Sequence[list[int]],
) -> tuple[list[Row], list[Answer], list[TokenScores] | None]:
    """Gives rows, answers, and the scores of prompts with answers where they are asked for."""
    served, limit, stop = chats.served, asked.limit, asked.stops
    with_scores = asked.logprobs is not None
    if with_scores and limit <= 1 and _is_greedy(asked, chat):
        # Reading the prompts tells the likeliest next tokens, too: nothing has to be decoded.
        for prompt in prompts:
            check_length(prompt, chat, new=0)
        rows = [Row(prompt, {}) for prompt in prompts for _ in range(asked.n or 1)]
        scores = await score(served, servable, [row.prompt for row in rows])
        if not limit:
            return rows, [Answer("", [], [], "length") for _ in rows], scores
        answers = []
        for row, known in zip(rows, scores, strict=True):
            token_id, value = known.top_ids[-1][0], known.top_values[-1][0]
            answers.append(answer_of_one(chat, row, token_id, value, stop=stop))
            known.values.append(value)
        return rows, answers, scores
    rows = rows_of(asked, chat, prompts, limit=limit)
    if not limit:
        return rows, [Answer("", [], [], "length") for _ in rows], None
    if not with_scores:
        return rows, await answer_whole(served, servable, rows, stop=stop), None
    answers = await answer_scored(served, servable, rows, stop=stop, chat=chat)
    wholes = [row.prompt + answer.token_ids for row, answer in zip(rows, answers, strict=True)]
    return rows, answers, await score(served, servable, wholes)


def _is_greedy(asked: CompletionRequest, chat: ChatText) -> bool:
    given = chat.defaults["temperature"] if asked.temperature is None else asked.temperature
    return asked.limit == 0 or given == 0


def _logprobs(
    chat: ChatText,
    asked: CompletionRequest,
    prompt: _Prompt,
    answer: Answer,
    scores: TokenScores,
    *,
    first: int | None = None,
) -> dict[str, Any]:
    ids = prompt.ids + answer.token_ids
    begin = 0 if asked.echo else len(prompt.ids)
    unseen = {place for place in range(len(prompt.ids), len(ids)) if chat.is_special(ids[place])}
    return completion_logprobs(
        chat,
        ids,
        scores,
        first=begin if first is None else first,
        begin=begin,
        top=asked.logprobs or 0,
        hidden=prompt.hidden | unseen,
        ended=answer.finish_reason is not None,
    )
