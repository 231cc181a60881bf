"""OpenAI's API for what is served: completions, chats, embeddings, streamed or whole.

https://platform.openai.com/docs/api-reference; `openai_schema` says which fields are taken. A
field that a request leaves out has the export's own default, but `max_tokens`, which is 16 for
completions, as OpenAI has it, and `openai_chat.CHAT_TOKENS` for chats.
"""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .chat_text import Chats
from .http_body import TooLargeError, read_body
from .openai_chat import answer_chat
from .openai_completions import answer_completion
from .openai_embeddings import answer_embeddings
from .openai_errors import OpenAiError, as_openai_error
from .openai_schema import ChatRequest, CompletionRequest, EmbeddingRequest, parse
from .served import ServedModels
from .wanted import while_wanted

MAX_REQUEST_BYTES = 32 * 2**20
READ_SECONDS = 60.0
_INLINE_BYTES = 64 * 1024


def routes(
    served: ServedModels,
    *,
    max_request_bytes: int = MAX_REQUEST_BYTES,
    timeout: float = READ_SECONDS,
) -> list[Route]:
    """Gives the routes of OpenAI's API.

    Args:
        served: what answers.
        max_request_bytes: larger bodies get status 413.
        timeout: seconds in which a body has to arrive.
    """
    chats = Chats(served)
    verbs = {
        "/v1/completions": (CompletionRequest, answer_completion),
        "/v1/chat/completions": (ChatRequest, answer_chat),
        "/v1/embeddings": (EmbeddingRequest, answer_embeddings),
    }

    def endpoint(kind, answer) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            body = await _read(request, max_request_bytes, timeout)
            small = len(body) <= _INLINE_BYTES  # else in a thread: the loop serves others meanwhile
            asked = parse(kind, body) if small else await asyncio.to_thread(parse, kind, body)
            return await while_wanted(request, answer(chats, asked))

        return _with_errors(handle)

    return [
        Route(path, endpoint(kind, answer), methods=["POST"])
        for path, (kind, answer) in verbs.items()
    ]


def _with_errors(handle: Callable[[Request], Awaitable[Response]]):
    async def answer(request: Request) -> Response:
        try:
            return await handle(request)
        except Exception as error:
            found = as_openai_error(error)
        headers = {"Retry-After": "1"} if found.status in (429, 503) else None
        return Response(found.body(), found.status, headers, media_type="application/json")

    return answer


async def _read(request: Request, limit: int, timeout: float) -> bytes:
    try:
        return await read_body(request, most=limit, timeout=timeout)
    except TimeoutError:
        text = f"The request did not arrive within {timeout:g} seconds."
        raise OpenAiError(408, text, code="timeout") from None
    except TooLargeError:
        text = f"The request is larger than {limit} bytes."
        raise OpenAiError(413, text, code="too_large") from None
