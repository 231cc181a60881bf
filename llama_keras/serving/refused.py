"""What a server answers when it does not answer: a canonical code and a reason.

The codes are gRPC's (https://grpc.io/docs/guides/status-codes), which are TensorFlow's, too; HTTP
has the status that TF Serving's model_servers/http_rest_api_util.cc gives them.
"""

CODES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND"),
    *("ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION"),
    *("ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"),
    "UNAUTHENTICATED",
)
HTTP_STATUS = {
    "OK": 200, "CANCELLED": 499, "INVALID_ARGUMENT": 400, "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404, "ALREADY_EXISTS": 409, "PERMISSION_DENIED": 403, "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400, "ABORTED": 409, "OUT_OF_RANGE": 400, "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503, "UNAUTHENTICATED": 401,
}  # fmt: skip


class Refused(Exception):
    """A request that cannot be answered.

    Args:
        code: a name in `CODES`, such as `"NOT_FOUND"`.
        message: the reason, for the caller.

    Attributes:
        code: as given.
        message: as given.
        http_status: the code in the words of HTTP.
    """

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code, self.message = code, message

    @property
    def http_status(self) -> int:
        """The code in the words of HTTP; 500 for what is a fault of the server."""
        return HTTP_STATUS.get(self.code, 500)


def refusal_of(error: BaseException) -> Refused | None:
    """Gives an error of a TensorFlow graph as a refusal, None for any other error."""
    if isinstance(error, Refused):
        return error
    number = getattr(error, "error_code", None)
    if not isinstance(number, int) or not 0 < number < len(CODES):
        return None
    return Refused(CODES[number], str(getattr(error, "message", error)))
