"""The deadline of a request: from its body, its headers, or the server's --timeout-ms."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

from fastapi import Request
from starlette.datastructures import Headers

from rankd.config.text import shorten
from rankd.context import ARRIVED, BATCH
from rankd.errors import InvalidRequest

# One day.
MAX_TIMEOUT_MS = 86_400_000

TIMEOUT_HEADER = "x-rankd-timeout-ms"

# Envoy, and with it a service mesh, sends the time that it waits itself.
_ENVOY_HEADER = "x-envoy-expected-rq-timeout-ms"

# `Prefer: wait=10`, in seconds: RFC 7240, section 4.3.
_PREFER_WAIT = re.compile(r'(?:^|,)\s*wait\s*=\s*"?(\d{1,9})"?\s*(?=[,;]|$)', re.IGNORECASE)


def deadline_of(http: Request, timeout_ms: int | None, default_ms: int) -> float | None:
    """The `time.monotonic()` after which the client does not wait any more; None: no limit.

    The smallest timeout of body and headers, else the server's. It counts from the arrival
    of the request, so a slow upload and the queue are part of it.

    Args:
        timeout_ms: that of the body.
        default_ms: the server's; 0: no limit.

    Raises:
        InvalidRequest: `x-rankd-timeout-ms` is not a number of milliseconds.
    """
    timeouts = [timeout for timeout in (timeout_ms, *_header_timeouts(http.headers)) if timeout]
    # Lines of a batch have time until the window of the batch ends.
    timeout = min(timeouts, default=0 if BATCH in http.scope else default_ms)
    if not timeout:
        return None
    arrived: float = http.scope.get(ARRIVED) or time.monotonic()
    return arrived + timeout / 1000


def _header_timeouts(headers: Headers) -> Iterator[int]:
    """Milliseconds; 0: no timeout."""
    if (value := headers.get(TIMEOUT_HEADER)) is not None:
        yield _milliseconds(value)
    # Headers that are not rankd's own are ignored, not refused, if they make no sense.
    envoy = headers.get(_ENVOY_HEADER, "")
    if envoy.isascii() and envoy.isdigit():
        yield min(int(envoy[:9]), MAX_TIMEOUT_MS)
    if wait := _PREFER_WAIT.search(",".join(headers.getlist("prefer"))):
        yield min(int(wait[1]) * 1000, MAX_TIMEOUT_MS)


def _milliseconds(value: str) -> int:
    digits = value.strip()
    is_number = digits.isascii() and digits.isdigit() and len(digits) < 10
    if not (is_number and 1 <= int(digits) <= MAX_TIMEOUT_MS):
        raise InvalidRequest(
            f"{TIMEOUT_HEADER} must be 1 to {MAX_TIMEOUT_MS} milliseconds, not {shorten(value)!r}",
            param=TIMEOUT_HEADER,
        )
    return int(digits)
