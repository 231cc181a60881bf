"""How much a server takes on, and who may ask it."""

import hmac
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

TOKEN_VARIABLE = "LLAMA_KERAS_TOKEN"
_SHORTEST_TOKEN = 8


@dataclass(frozen=True)
class Limits:
    """Bounds of a server.

    Attributes:
        max_request_bytes: larger bodies get status 413, or RESOURCE_EXHAUSTED.
        max_rows: rows of one request.
        timeout: seconds in which a request is answered, or refused.
        max_connections: connections that REST holds at once, and calls that gRPC does.
        drain_seconds: how long a server that stops lets begun requests run.

    Raises:
        InputError: a number is out of range.
    """

    max_request_bytes: int = 32 * 2**20
    max_rows: int = 4096
    timeout: float = 60.0
    max_connections: int = 1000
    drain_seconds: float = 30.0

    def __post_init__(self):
        for name in ("max_request_bytes", "max_rows", "timeout", "max_connections"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is above 0; got {getattr(self, name)}.")
        if not self.drain_seconds >= 0:
            raise InputError(f"drain_seconds is not below 0; got {self.drain_seconds}.")


@dataclass(frozen=True)
class Access:
    """What a caller needs and how the way to the server is kept.

    Attributes:
        token: that requests carry as `Authorization: Bearer TOKEN`; None asks for none.
        tls_cert: PEM file of the certificate and its chain.
        tls_key: PEM file of its key.
        insecure: True serves other machines without a token.

    Raises:
        InputError: one of the two TLS files alone, a file that is not there, a token too short.
    """

    token: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    insecure: bool = False

    def __post_init__(self):
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InputError("TLS needs both --tls-cert and --tls-key.")
        for file in (self.tls_cert, self.tls_key):
            if file is not None and not Path(file).is_file():
                raise InputError(f"There is no file {file}; TLS needs PEM files.")
        if self.token is not None and (len(self.token) < _SHORTEST_TOKEN or not self._is_plain()):
            raise InputError(
                f"A token has at least {_SHORTEST_TOKEN} characters, printable ASCII without "
                "spaces; make one with: openssl rand -hex 32"
            )

    def _is_plain(self) -> bool:
        return all(33 <= ord(letter) <= 126 for letter in self.token or "")

    def allows(self, authorization: str | None) -> bool:
        """Says whether a request with this `Authorization` may pass, in constant time."""
        if self.token is None:
            return True
        scheme, _, given = (authorization or "").partition(" ")
        same = hmac.compare_digest(given.strip().encode("utf-8", "replace"), self.token.encode())
        return same and scheme.lower() == "bearer"

    def check_address(self, address: str) -> str | None:
        """Gives a warning about who can reach the server at an address, None where all is well.

        Raises:
            InputError: other machines could use it, and no token is asked for.
        """
        if ipaddress.ip_address(address.partition("%")[0]).is_loopback:
            return None
        if self.token is None and not self.insecure:
            raise InputError(
                f"Anyone who reaches {address} could use the models: ask for a token "
                f"(--token-file FILE, or the variable {TOKEN_VARIABLE}), or say --insecure."
            )
        if self.token is None:
            return f"Warning: anyone who reaches {address} can use the models; there is no login."
        if self.tls_cert is None:
            return (
                f"Warning: {address} is served without TLS, so tokens and texts travel in clear; "
                "give --tls-cert and --tls-key, or put a proxy with TLS before it."
            )
        return None


def read_token(
    file: str | Path | None = None, *, environment: Mapping[str, str] = os.environ
) -> str | None:
    """Gives the token in a file, or else in `LLAMA_KERAS_TOKEN`; None where there is neither.

    Raises:
        InputError: the file cannot be read or is empty.
    """
    if file is None:
        return environment.get(TOKEN_VARIABLE) or None
    try:
        token = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The token file {file} cannot be read: {error}.") from None
    if not token:
        raise InputError(f"The token file {file} is empty; write one with: openssl rand -hex 32")
    return token
