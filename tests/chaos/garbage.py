"""What is no request: heads and bodies that nobody can answer."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from lines import message

# Of the server: what is longer, or takes longer to arrive, is refused.
MAX_BODY_BYTES = 500_000
READ_SECONDS = 8.0


@dataclass(frozen=True)
class Garbage:
    """A body or a head that nobody can answer.

    Attributes:
        statuses: with which it may be refused.
        may_be_cut_off: it need not be answered: it is no request, or sends on after the refusal.
        whole: it has a head; else it is all there is.
    """

    what: str
    body: Callable[[random.Random], bytes]
    head: tuple[str, ...] = ()
    statuses: tuple[int, ...] = (400,)
    may_be_cut_off: bool = False
    whole: bool = True

    def data(self, dice: random.Random, key: str, name: str) -> bytes:
        if not self.whole:
            return self.body(dice)
        return message("/v1/rerank", self.body(dice), key, name, *self.head)


def _noise(dice: random.Random) -> bytes:
    return dice.randbytes(dice.randrange(1, 3000))


GARBAGE = (
    Garbage("bad JSON", lambda dice: b'{"query": "q", "documents": ["a", ' + b"x" * 50),
    Garbage("noise for JSON", _noise, statuses=(400, 415)),
    Garbage("deep nesting", lambda dice: b'{"query":"q","documents":' + b"[" * 20_000),
    Garbage(
        "deep nesting that ends",
        lambda dice: b'{"query":"q","documents":' + b"[" * 300 + b"]" * 300 + b"}",
    ),
    Garbage("a query that is a number", lambda dice: b'{"query": 7, "documents": ["a"]}'),
    Garbage("documents that are one", lambda dice: b'{"query": "q", "documents": 7}'),
    Garbage("no documents", lambda dice: b'{"query": "q", "documents": []}'),
    Garbage("no object", lambda dice: b"[1, 2, 3]"),
    Garbage("nothing", lambda dice: b""),
    Garbage("a NUL", lambda dice: b"\0"),
    Garbage("no UTF-8", lambda dice: b'{"query": "\xff\xfe", "documents": ["a"]}'),
    Garbage(
        "too large",
        lambda dice: b'{"query": "q", "documents": ["' + b"x" * MAX_BODY_BYTES + b'"]}',
        statuses=(413,),
        may_be_cut_off=True,
    ),
    Garbage(
        "said to be too large",
        lambda dice: b"{}",
        ("content-length: 99999999999",),
        statuses=(413,),
    ),
    Garbage(
        "longer than it is",
        lambda dice: b'{"query": "q"',
        ("content-length: 5000",),
        statuses=(408,),
    ),
    Garbage(
        "a length that is none",
        lambda dice: b"{}",
        ("content-length: 1e3",),
        may_be_cut_off=True,
    ),
    Garbage(
        "two lengths",
        lambda dice: b"{}",
        ("content-length: 2", "content-length: 3"),
        may_be_cut_off=True,
    ),
    Garbage(
        "chunks that are none",
        lambda dice: b"zz\r\n{}\r\n",
        ("transfer-encoding: chunked",),
        may_be_cut_off=True,
    ),
    Garbage("half a head", lambda dice: b"POST /v1/re", statuses=(408,), whole=False),
    Garbage("noise", _noise, whole=False, statuses=(400, 408), may_be_cut_off=True),
)
