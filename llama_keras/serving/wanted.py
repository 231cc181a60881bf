"""Work for a client, as long as that is there."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

_Result = TypeVar("_Result")


async def while_wanted(request: Request, work: Awaitable[_Result]) -> _Result:
    """Gives what `work` gives; when the client goes before, the work is cancelled.

    Args:
        request: whose body has been read.
        work: a coroutine or future; of one that waits in a queue, what has not begun is dropped.

    Raises:
        ClientDisconnect: the client went.
    """
    answer = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnect
        return answer.result()
    finally:
        answer.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
