"""Take a TCP port for a server, or say why not."""

import errno
import socket

from ..errors import InputError

# As many as a system lets wait (it takes fewer where it has to); 32 clients that start at once fit.
_BACKLOG = 1024


def listen(host: str, port: int) -> socket.socket:
    """Gives a listening socket.

    Args:
        host: name or address of this machine.
        port: 0 takes a free one.

    Raises:
        InputError: no such address, or the port is taken or not allowed.
    """
    if not 0 <= port < 2**16:
        raise InputError(f"A port is a number from 0 (a free one) to 65535; got {port}.")
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise InputError(f"--host {host} --port {port} is not an address: {error}.") from None
    # With the protocol named, asyncio turns Nagle's delay off; without it a reply takes 40 ms.
    listener = socket.socket(family, kind, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Listen at once, so that no other process can take the port while the models load.
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise InputError(_why_no_port(host, port, error)) from None
    return listener


def in_url(host: str) -> str:
    """Gives a host as URLs have it: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def _why_no_port(host: str, port: int, error: OSError) -> str:
    reasons = {
        errno.EADDRINUSE: f"Port {port} on {host} is taken by another program; stop it, or choose "
        "another port with --port (0 takes a free one).",
        errno.EACCES: f"Port {port} needs rights that this user lacks; choose one above 1023.",
        errno.EADDRNOTAVAIL: f"This machine has no address {host}; use --host 127.0.0.1.",
    }
    default = f"Cannot listen on {host} port {port}: {error}."
    return reasons.get(error.errno or 0, default)
