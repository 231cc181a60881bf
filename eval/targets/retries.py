"""Asking a server again when it is away for a while."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from llama_keras.errors import UnavailableError

Result = TypeVar("Result")
Sleep = Callable[[float], None]
# Times that a server is asked again which never answered yet: a wrong address is told soon, and
# one that just starts is waited for.
FIRST_RETRIES = 3
# Statuses of a server that may answer later; None: no answer came.
_PASSING = (None, 429, 502, 503, 504)

logger = logging.getLogger("llama_keras")


def with_retries(call: Callable[[], Result], *, retries: int, sleep: Sleep | None = None) -> Result:
    """Gives what `call` gives, asked again after 1, 2, 4, … seconds while the server is away.

    Each time it is away is logged, so that nobody waits without knowing why.

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
                times = f" Asked {retries + 1} times." if retries else ""
                raise UnavailableError(f"{error}{times}") from error
            pause = 2.0**attempt
            logger.warning("%s Asked again in %g s (%d of %d).", error, pause, attempt + 1, retries)
        (sleep or time.sleep)(pause)
    raise AssertionError("unreachable")
