"""Errors in the shape that OpenAI's API gives them."""

import json
import sys
import traceback

from starlette.requests import ClientDisconnect

from ..errors import InputError
from .refused import Refused


class OpenAiError(Exception):
    """A request that is answered with an error in OpenAI's shape.

    Args:
        status: of HTTP.
        message: the reason, for the caller.
        param: the field that is wrong.
        code: a short name of the reason.
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    def body(self) -> bytes:
        """Gives the answer's JSON."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return json.dumps({"error": error}, ensure_ascii=False).encode()


def as_openai_error(error: Exception) -> OpenAiError:
    """Gives any error as one in OpenAI's shape; a fault of the server is told to the operator."""
    if isinstance(error, OpenAiError):
        return error
    if isinstance(error, Refused):
        missing = error.code == "NOT_FOUND"
        return OpenAiError(
            error.http_status,
            error.message,
            param="model" if missing else None,
            code="model_not_found" if missing else error.code.lower(),
        )
    if isinstance(error, InputError):
        return OpenAiError(400, str(error), code="invalid_value")
    if isinstance(error, ClientDisconnect):
        return OpenAiError(499, "The client went away.")
    traceback.print_exc(file=sys.stderr)
    return OpenAiError(500, f"{type(error).__name__}: {error}", code="internal_error")
