"""Seeded mutations of good requests: bodies, paths, headers, methods."""

import json
from collections.abc import Callable
from random import Random
from typing import Any

GOOD_BODIES = [
    b'{"instances": ["good", {"b64": "w6k="}, "x"]}',
    '{"signature_name": "echo", "inputs": {"data": ["你好 \\u00e9", {"b64": "/w=="}]}}'.encode(),
    b'{"signature_name": "numbers", "instances": '
    b'[{"x": [1, 2.5], "add": 3, "wide": 4, "negate": false}]}',
    b'{"signature_name": "logarithm", "inputs": [1.5, 2, 1e3]}',
    b'{"signature_name": "pick", "instances": [0, 1]}',
]
_TOKENS = [
    *(b"[", b"]", b"{", b"}", b'"', b",", b":", b"\\", b"\xff", b"\xed\xa0\x80", b"\x00", b"1e999"),
    *(b"null", b"NaN", b"-", b'"b64"', b"\\ud800", b"\xef\xbb\xbf", b"//", b"9" * 400),
]
_JUNK: list[Any] = [
    *(None, True, -1, 0.5, 1e308, 2**63, -(2**70), "", "x", [], {}, [[]], [None], {"b64": 1}),
    *({"b64": "?"}, {"b64": "YQ==", "x": 1}, {"": ""}, ["a", ["b"]], "\ud800", [1, "a"]),
]


def broken_body(random: Random) -> bytes:
    """Gives a body that one kind of mutation was done to, once or a few times."""
    body = random.choice(GOOD_BODIES)
    mutate = random.choice(_BODY_MUTATIONS)
    for _ in range(random.choice([1, 1, 1, 2, 4])):
        body = mutate(body, random)
    return body


def broken_path(random: Random) -> str:
    """Gives a path and query near those of the API."""
    parts = random.choice(
        [
            ["/v1", "/models", "/tiny", ":predict"],
            ["/v1", "/models", "/tiny", "/versions", "/3", ":predict"],
            ["/v1", "/models", "/tiny", "/labels", "/stable", ":predict"],
            ["/v1", "/models", "/tiny", "/metadata"],
        ]
    )
    parts = list(parts)
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(parts))
        parts[at] = random.choice(
            [
                *(
                    "",
                    "/",
                    "//",
                    "/..",
                    "/%2e%2e",
                    "/%00",
                    "/%ff",
                    ":",
                    "::",
                    "?",
                    "/tiny?x=1",
                    "/é",
                ),
                *(
                    "/" + "9" * 40,
                    "/-1",
                    "/0x3",
                    "/٣",
                    "/" + "a" * 3000,
                    ":Predict",
                    ":predict:predict",
                ),
                *("/versions/3/labels/x", "/*", "/{name}", "/\\", "/%", ";x", "/\n", "/ "),
            ]
        )
    return "".join(parts) or "/"


def broken_headers(random: Random) -> list[tuple[bytes, bytes]]:
    """Gives headers that a server may get, if not from a sane client."""
    names = [b"content-type", b"content-length", b"transfer-encoding", b"content-encoding", b"host"]
    names += [b"authorization", b"accept", b"expect", b"x-" + b"a" * 200, b"traceparent"]
    values = [
        b"",
        b"application/xml",
        b"gzip",
        b"-1",
        b"99999999999999999999",
        b"Bearer",
        b"\xff\xfe",
    ]
    values += [b"chunked", b"text/plain; charset=utf-16", b"a" * 5000, b"*/*", b"100-continue"]
    count = random.randint(0, 4)
    return [(random.choice(names), random.choice(values)) for _ in range(count)]


def _cut(body: bytes, random: Random) -> bytes:
    return body[: random.randrange(len(body))] if body else body


def _flip(body: bytes, random: Random) -> bytes:
    changed = bytearray(body)
    for _ in range(random.randint(1, 5)):
        if changed:
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _insert(body: bytes, random: Random) -> bytes:
    at = random.randrange(len(body) + 1)
    return body[:at] + random.choice(_TOKENS) + body[at + random.randint(0, 6) :]


def _repeat(body: bytes, random: Random) -> bytes:
    at, end = sorted(random.randrange(len(body) + 1) for _ in range(2))
    return body[:end] + body[at:end] * random.randint(1, 3) + body[end:]


def _retype(body: bytes, random: Random) -> bytes:
    """Puts something of another type at any place of the document."""
    try:
        document = json.loads(body)
    except ValueError:
        return _insert(body, random)
    holders: list[Any] = [{"": document}]
    for holder in holders:
        inner = holder.values() if isinstance(holder, dict) else holder
        holders += [value for value in inner if isinstance(value, dict | list) and value]
    holder: Any = random.choice(holders)
    key = random.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    if isinstance(holder, dict) and random.random() < 0.3:
        holder[random.choice(["", "b64", "inputs", "instances", "text", "x"])] = holder.pop(key)
    else:
        holder[key] = random.choice(_JUNK)
    return json.dumps(holders[0].get("", document)).encode("utf-8", "surrogatepass")


def _nest(body: bytes, random: Random) -> bytes:
    depth = random.choice([3, 50, 900, 9000])
    opening, closing = random.choice([(b"[", b"]"), (b'{"a":', b"}")])
    inside = opening * depth + b"1" + closing * random.choice([depth, depth, depth - 1, 0])
    return random.choice([b'{"instances": [%b]}', b'{"inputs": {"text": %b}}', b"%b"]) % inside


def _enlarge(body: bytes, random: Random) -> bytes:
    number = random.choice(
        [b"9" * 5000, b"1e400", b"-1e-400", b"0." + b"1" * 900, b"1" + b"0" * 30]
    )
    form = random.choice([b'"logarithm", "inputs": [%b]', b'"pick", "instances": [%b]'])
    return b'{"signature_name": ' + form % number + b"}"


def _noise(body: bytes, random: Random) -> bytes:
    return random.randbytes(random.choice([0, 1, 7, 300, 30_000]))


_BODY_MUTATIONS: list[Callable[[bytes, Random], bytes]] = [
    *(_cut, _flip, _insert, _repeat, _retype, _retype, _nest, _enlarge, _noise)
]
