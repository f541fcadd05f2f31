"""How long a caller waits: as the body says, or a header, or the server."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

from fastapi import Request
from starlette.datastructures import Headers

from rankd.context import ARRIVED, BATCH
from rankd.errors import InvalidRequest
from rankd.ranking.service import service_of

# A day; beyond what any client waits, and within what a clock can add.
LONGEST_MS = 86_400_000

OURS = "x-rankd-timeout-ms"

# What Envoy, and with it a service mesh, tells a server of its own patience.
_ENVOYS = "x-envoy-expected-rq-timeout-ms"

# `Prefer: wait=10`, in seconds: RFC 7240, 4.3.
_WAIT = re.compile(r'(?:^|,)\s*wait\s*=\s*"?(\d{1,9})"?\s*(?=[,;]|$)', re.IGNORECASE)


def deadline_of(http: Request, timeout_ms: int | None) -> float | None:
    """The `time.monotonic()` after which nobody awaits the answer.

    The least of what the body and the headers say, or else the server's own; counted from
    the moment at which the request came, so that a slow body and a queue are part of it.

    Args:
        timeout_ms: what the body says.

    Raises:
        InvalidRequest: our own header holds no number of milliseconds.
    """
    said = [limit for limit in (timeout_ms, *_in_headers(http.headers)) if limit]
    # The lines of a batch have until its window ends.
    limit = min(said, default=0 if BATCH in http.scope else service_of(http).timeout_ms)
    if not limit:
        return None
    arrived: float = http.scope.get(ARRIVED) or time.monotonic()
    return arrived + limit / 1000


def _in_headers(headers: Headers) -> Iterator[int]:
    """Milliseconds; 0 says nothing."""
    if (ours := headers.get(OURS)) is not None:
        yield _milliseconds(ours)
    # What others meant for others is read where it is understood, and never refused.
    envoys = headers.get(_ENVOYS, "")
    if envoys.isascii() and envoys.isdigit():
        yield min(int(envoys[:9]), LONGEST_MS)
    if wait := _WAIT.search(",".join(headers.getlist("prefer"))):
        yield min(int(wait[1]) * 1000, LONGEST_MS)


def _milliseconds(value: str) -> int:
    digits = value.strip()
    is_number = digits.isascii() and digits.isdigit() and len(digits) < 10
    if not (is_number and 1 <= int(digits) <= LONGEST_MS):
        raise InvalidRequest(
            f"{OURS} must be 1 to {LONGEST_MS} milliseconds, not {value[:60]!r}", param=OURS
        )
    return int(digits)
