"""Asking a server again when it is away for a while."""

import time
from collections.abc import Callable
from typing import TypeVar

from llama_keras.errors import UnavailableError

Result = TypeVar("Result")
# Statuses of a server that may answer later; None: no answer came.
_PASSING = (None, 429, 502, 503, 504)


def with_retries(
    call: Callable[[], Result], *, retries: int, sleep: Callable[[float], None] = time.sleep
) -> Result:
    """Gives what `call` gives, asked again after 1, 2, 4, … seconds while the server is away.

    Raises:
        UnavailableError: it was away each time.
        ServingError: the server refused the request itself.
    """
    from llama_keras.serving.client import ServingError

    for attempt in range(retries + 1):
        try:
            return call()
        except ServingError as error:
            if error.status not in _PASSING:
                raise
            if attempt == retries:
                raise UnavailableError(f"{error} Asked {retries + 1} times.") from error
        sleep(2.0**attempt)
    raise AssertionError("unreachable")
