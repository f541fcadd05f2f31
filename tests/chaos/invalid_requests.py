"""Requests with an invalid head or body, and the statuses that they may get."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from connections import message

# Limits of the server under test.
MAX_BODY_BYTES = 500_000
READ_SECONDS = 8.0

# Fields of a nested object, one of them twice: 435 KiB.
_NESTED_FIELDS = 35_000


@dataclass(frozen=True)
class InvalidInput:
    """An invalid head or body.

    Attributes:
        name: for the report.
        head: extra header lines.
        statuses: that it may get.
        has_head: else `body` is everything that is sent.
    """

    name: str
    body: Callable[[random.Random], bytes]
    head: tuple[str, ...] = ()
    statuses: tuple[int, ...] = (400,)
    has_head: bool = True

    def data(self, rng: random.Random, key: str, request_id: str) -> bytes:
        if not self.has_head:
            return self.body(rng)
        return message("/v1/rerank", self.body(rng), key, request_id, *self.head)


def _random_bytes(rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(1, 3000))


def _repeated_nested_name(_rng: random.Random) -> bytes:
    fields = ", ".join(f'"k{number}": 1' for number in range(_NESTED_FIELDS))
    document = b'{"text": "a", "m": {"query": 1, %s, "k0": 2}}' % fields.encode()
    return b'{"query": "q", "documents": [%s]}' % document


INVALID_REQUESTS = (
    InvalidInput("bad JSON", lambda rng: b'{"query": "q", "documents": ["a", ' + b"x" * 50),
    InvalidInput("random bytes as body", _random_bytes, statuses=(400, 415)),
    InvalidInput("deep nesting", lambda rng: b'{"query":"q","documents":' + b"[" * 20_000),
    InvalidInput(
        "deep nesting, closed",
        lambda rng: b'{"query":"q","documents":' + b"[" * 300 + b"]" * 300 + b"}",
    ),
    InvalidInput("a nested name twice", _repeated_nested_name),
    InvalidInput("query is a number", lambda rng: b'{"query": 7, "documents": ["a"]}'),
    InvalidInput("documents is a number", lambda rng: b'{"query": "q", "documents": 7}'),
    InvalidInput("no documents", lambda rng: b'{"query": "q", "documents": []}'),
    InvalidInput("body is an array", lambda rng: b"[1, 2, 3]"),
    InvalidInput("empty body", lambda rng: b""),
    InvalidInput("a NUL byte", lambda rng: b"\0"),
    InvalidInput("invalid UTF-8", lambda rng: b'{"query": "\xff\xfe", "documents": ["a"]}'),
    InvalidInput(
        "too large",
        lambda rng: b'{"query": "q", "documents": ["' + b"x" * MAX_BODY_BYTES + b'"]}',
        statuses=(413,),
    ),
    InvalidInput(
        "content-length over the limit",
        lambda rng: b"{}",
        ("content-length: 99999999999",),
        statuses=(413,),
    ),
    InvalidInput(
        "content-length longer than the body",
        lambda rng: b'{"query": "q"',
        ("content-length: 5000",),
        statuses=(408,),
    ),
    InvalidInput(
        "content-length is not an integer",
        lambda rng: b"{}",
        ("content-length: 1e3",),
    ),
    InvalidInput(
        "two content-lengths",
        lambda rng: b"{}",
        ("content-length: 2", "content-length: 3"),
    ),
    InvalidInput(
        "invalid chunks",
        lambda rng: b"zz\r\n{}\r\n",
        ("transfer-encoding: chunked",),
    ),
    InvalidInput("incomplete head", lambda rng: b"POST /v1/re", statuses=(408,), has_head=False),
    InvalidInput("random bytes", _random_bytes, has_head=False, statuses=(400, 408)),
)
