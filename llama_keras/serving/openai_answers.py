"""What completions and chats have in common: rows to answer, counts of tokens, streams."""

import json
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from starlette.responses import JSONResponse, Response, StreamingResponse

from .chat_decoding import Answer, Row
from .chat_text import ChatText
from .openai_errors import OpenAiError, as_openai_error
from .openai_schema import ChatRequest, CompletionRequest
from .served import Servable


def rows_of(
    asked: CompletionRequest | ChatRequest,
    chat: ChatText,
    prompts: Sequence[list[int]],
    *,
    limit: int,
) -> list[Row]:
    """Gives the rows to answer: `n` of each prompt, one after another, each with a seed of its own.

    Args:
        asked: the request.
        chat: the export's tokenizer and defaults.
        prompts: token ids.
        limit: new tokens at most.

    Raises:
        OpenAiError: a prompt does not fit.
    """
    settings = {
        name: chat.defaults[name] if value is None else value
        for name, value in {
            "temperature": asked.temperature,
            "top_p": asked.top_p,
            "top_k": asked.top_k,
        }.items()
    }
    # Who gives no seed wants another text each time.
    seed = secrets.randbits(31) if asked.seed is None else asked.seed
    rows = []
    for prompt in prompts:
        check_length(prompt, chat, new=min(limit, 1))
        new = min(limit, chat.context_length - len(prompt))
        rows += [
            Row(prompt, {**settings, "max_new_tokens": new, "seed": _int64(seed + number)})
            for number in range(asked.n or 1)
        ]
    return rows


def check_length(prompt: Sequence[int], chat: ChatText, *, new: int) -> None:
    """Raises `OpenAiError` unless the context has room for a prompt and some new tokens."""
    if len(prompt) + new > chat.context_length:
        raise OpenAiError(
            400,
            f"The prompt has {len(prompt)} tokens, and the model's context is "
            f"{chat.context_length} tokens"
            + (", of which one must be left for the answer" if new else "")
            + "; shorten the prompt.",
            code="context_length_exceeded",
        )


def usage_of(prompts: Sequence[Sequence[int]], answers: Sequence[Answer]) -> dict[str, int]:
    """Gives the counts of tokens; a prompt that is answered `n` times counts once."""
    asked, made = sum(map(len, prompts)), sum(answer.count for answer in answers)
    return {"prompt_tokens": asked, "completion_tokens": made, "total_tokens": asked + made}


def head_of(kind: str, prefix: str, servable: Servable) -> dict[str, Any]:
    """Gives the fields that all answers begin with."""
    return {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": servable.name,
        "system_fingerprint": f"{servable.name}@{servable.version}",
    }


def json_response(body: dict[str, Any]) -> Response:
    """Gives a body as JSON."""
    return JSONResponse(body)


async def stream(events: AsyncGenerator[dict[str, Any]]) -> Response:
    """Gives events as a stream that ends with `[DONE]`.

    The first event is waited for: what goes wrong before it has a status of its own.
    """
    try:
        first = await anext(events)
    except BaseException:
        await events.aclose()
        raise
    return _EventStream(_lines(first, events), media_type="text/event-stream")


async def _lines(first: dict[str, Any], events: AsyncGenerator[dict[str, Any]]):
    try:
        yield _line(first)
        async for event in events:
            yield _line(event)
        yield b"data: [DONE]\n\n"
    except Exception as error:  # the status has been sent: the error is an event, too
        yield b"data: " + as_openai_error(error).body() + b"\n\n"
    finally:
        await events.aclose()


def _line(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n"


class _EventStream(StreamingResponse):
    """A stream whose generator is closed when the client goes: the model stops then."""

    async def __call__(self, scope, receive, send) -> None:
        self.headers.update({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        body: Any = self.body_iterator
        try:
            await super().__call__(scope, receive, send)
        finally:
            await body.aclose()


def _int64(value: int) -> int:
    return (value + 2**63) % 2**64 - 2**63
