"""Context of the request in flight: context variables, and keys of the ASGI scope."""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple

# The value outside of a request.
NO_ID = "without an id"
REQUEST_ID: ContextVar[str] = ContextVar("REQUEST_ID", default=NO_ID)


class TraceIds(NamedTuple):
    """Ids of the trace and of the request's span, in lowercase hexadecimal digits."""

    trace: str
    span: str


# None: the request is not traced.
TRACE: ContextVar[TraceIds | None] = ContextVar("TRACE", default=None)

# Keys that rankd adds to an ASGI scope; each comment begins with the type of the value.

# str: the path prefix (`voyage`) that was removed from the path and selects the dialect.
PREFIX = "rankd.prefix"

# float: `time.monotonic()` when the request arrived.
ARRIVED = "rankd.arrived"

# str: the name of the request's API key, or the first digits of its digest.
CALLER = "rankd.caller"

# bool: the request is a line of a batch job; no client waits for the answer.
BATCH = "rankd.batch"

# Dialect: the format of error responses.
DIALECT = "rankd.dialect"

# float: `time.perf_counter()` when parsing of the body began; removed when ranking begins.
PARSING = "rankd.parsing"

# list[StageTimings]: one for each ranking of the request.
TIMINGS = "rankd.timings"

# bool: a file that belongs to a page; the access log has it at the level DEBUG.
PART_OF_PAGE = "rankd.part_of_page"

# RankError: the error that was sent as the response.
FAILURE = "rankd.failure"
