"""What is known of the request in flight: its id and trace, and the keys of its ASGI scope."""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple

# Of a log line that belongs to no request.
NO_ID = "without an id"
REQUEST_ID: ContextVar[str] = ContextVar("REQUEST_ID", default=NO_ID)


class TraceIds(NamedTuple):
    """A trace and the request's span in it, in hexadecimal digits."""

    trace: str
    span: str


# None when the request is not traced.
TRACE: ContextVar[TraceIds | None] = ContextVar("TRACE", default=None)

# Keys of an ASGI scope, and the type of each value.

# str: the prefix (`voyage`) that was taken off the path and forces a dialect.
PREFIX = "rankd.prefix"

# float: `time.monotonic()` when the request arrived.
ARRIVED = "rankd.arrived"

# str: the name of the key that was sent, or digits of its digest.
CALLER = "rankd.caller"

# bool: the request is a line of a batch job; no client waits for the answer.
BATCH = "rankd.batch"

# Dialect: in which errors are to be rendered.
DIALECT = "rankd.dialect"

# float: `time.perf_counter()` when its body began to be read; removed when ranking begins.
PARSING = "rankd.parsing"

# list[StageTimings]: of the request's rankings.
TIMINGS = "rankd.timings"

# RankError: the error that it was answered with.
FAILURE = "rankd.failure"
