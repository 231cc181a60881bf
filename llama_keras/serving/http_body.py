"""Take a request's body, but not a larger or slower one than is allowed."""

import asyncio

from starlette.requests import Request


class TooLargeError(Exception):
    """The body has more bytes than are taken."""


async def read_body(request: Request, *, most: int, timeout: float) -> bytes:
    """Gives a request's body.

    Args:
        request: whose body has not been read.
        most: bytes that are taken.
        timeout: seconds in which it has to arrive.

    Raises:
        TooLargeError: it has more bytes.
        TimeoutError: it did not arrive in time.
    """
    body, size = bytearray(), 0
    async with asyncio.timeout(timeout):
        async for chunk in request.stream():
            size += len(chunk)
            if size <= most:
                body += chunk
            elif size > 4 * most:
                break  # read on for a while: a client that still sends does not see the answer
    if size > most:
        raise TooLargeError
    return bytes(body)
