"""`POST /v1/chat/completions`: conversations answered through the chat template of the export."""

from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from .chat_decoding import Answer, answer_scored, answer_stepwise, answer_whole
from .chat_text import Chats, ChatText
from .openai_answers import head_of, json_response, rows_of, stream, usage_of
from .openai_errors import OpenAiError
from .openai_logprobs import chat_logprobs, score, scores_so_far
from .openai_schema import ChatRequest
from .served import Servable

# New tokens of a request that gives no limit.
CHAT_TOKENS = 512


async def answer_chat(chats: Chats, asked: ChatRequest) -> Response:
    """Gives the answer to a request."""
    if asked.stream:
        return await stream(_events(chats, asked))
    with chats.served.use(asked.model) as servable:
        chat = await chats.of(servable)
        ids = await _prompt(chats, servable, chat, asked)
        rows = rows_of(asked, chat, [ids], limit=asked.limit or CHAT_TOKENS)
        logprobs: Sequence[Any] = [None] * len(rows)
        if asked.logprobs:
            answers = await answer_scored(chats.served, servable, rows, stop=asked.stops, chat=chat)
            wholes = [ids + answer.token_ids for answer in answers]
            top, first = asked.top_logprobs or 0, len(ids)
            logprobs = [
                chat_logprobs(chat, whole, scores, first=first, top=top)
                for whole, scores in zip(
                    wholes, await score(chats.served, servable, wholes), strict=True
                )
            ]
        else:
            answers = await answer_whole(chats.served, servable, rows, stop=asked.stops)
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": answer.text, "refusal": None},
                "logprobs": logprobs[index],
                "finish_reason": answer.finish_reason,
            }
            for index, answer in enumerate(answers)
        ]
        head = head_of("chat.completion", "chatcmpl", servable)
        return json_response({**head, "choices": choices, "usage": usage_of([ids], answers)})


async def _events(chats: Chats, asked: ChatRequest):
    with chats.served.use(asked.model) as servable:
        chat = await chats.of(servable)
        ids = await _prompt(chats, servable, chat, asked)
        rows = rows_of(asked, chat, [ids], limit=asked.limit or CHAT_TOKENS)
        head = head_of("chat.completion.chunk", "chatcmpl", servable)
        head |= {"usage": None} if asked.with_usage else {}

        async def event(index: int, delta: dict[str, str], reason: str | None = None):
            logprobs = (
                await told(index) if asked.logprobs and (delta.get("content") or reason) else None
            )
            choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
            return {**head, "choices": [choice]}

        async def told(index: int) -> dict[str, Any] | None:
            """Gives the `logprobs` of the tokens that have come since the last ones."""
            whole = ids + total[index].token_ids
            first, top = ends[index], asked.top_logprobs or 0
            ends[index] = len(whole)
            if first == len(whole):
                return None
            scores = await scores_so_far(
                chats.served, servable, ids, total[index], top=top, with_prompt=False
            )
            return chat_logprobs(chat, whole, scores, first=first, top=top)

        total = [Answer("", [], [], None) for _ in rows]
        ends = [len(ids)] * len(rows)
        news = answer_stepwise(chats.served, servable, rows, stop=asked.stops, chat=chat)
        async for index, new in news:
            if not total[index].token_ids:
                yield await event(index, {"role": "assistant", "content": ""})
            total[index].add(new)
            if new.text:
                yield await event(index, {"content": new.text})
            if new.finish_reason:
                yield await event(index, {}, new.finish_reason)
        if asked.with_usage:
            yield {**head, "choices": [], "usage": usage_of([ids], total)}


async def _prompt(
    chats: Chats, servable: Servable, chat: ChatText, asked: ChatRequest
) -> list[int]:
    if chat.chat_template is None:
        raise OpenAiError(
            400,
            f"{servable.name} has no chat template, so it does not chat; ask /v1/completions.",
            param="model",
            code="unsupported_model",
        )
    messages = [
        {**message, "content": _content(place, message.get("content"))}
        for place, message in enumerate(asked.messages)
    ]
    return await chat.encode_chat(chats.served, servable, messages)


def _content(place: int, content: Any) -> str:
    """Gives a message's text; it may come in parts."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if isinstance(parts, list):
        texts = [
            part.get("text")
            for part in parts
            if isinstance(part, dict) and part.get("type") in ("text", "refusal")
        ]
        kept = [text for text in texts if isinstance(text, str)]
        if len(kept) == len(parts):
            return "".join(kept)
    raise OpenAiError(
        400,
        f"messages.{place}.content is text, or parts of the type text; others are not read here.",
        param="messages",
        code="invalid_value",
    )
