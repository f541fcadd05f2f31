"""One call: its attempts, the waits between them and its errors; without any I/O.

The retries are our own because httpx retries connection errors only; these also follow
`Retry-After`, and one timeout covers all attempts of a call
(https://www.python-httpx.org/advanced/transports/#http-transport).
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar

import httpx

from rankd.client.errors import (
    BadAnswer,
    BadRequest,
    ConnectionFailed,
    ConnectionLost,
    Overloaded,
    RankdError,
    ServerFault,
    TimedOut,
    Unauthorized,
    Unavailable,
)

T = TypeVar("T")

# Seconds before the second attempt. The wait doubles each time, up to the maximum.
_FIRST_WAIT = 0.5
_MAX_WAIT = 8.0
_MAX_RETRY_AFTER = 30.0


@dataclass(slots=True)
class Call(Generic[T]):
    """One call, from its first attempt to its last.

    Attributes:
        read: makes the result from the response's JSON.
        timeout: seconds for all attempts and waits.
        retries: maximum number of attempts after the first.
        tried: number of retries so far.
        began: `time.monotonic()` of the first attempt.
    """

    method: str
    url: str
    content: bytes | None
    read: Callable[[Any], T]
    timeout: float
    retries: int
    tried: int = 0
    began: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        """Seconds until the timeout, above 0.

        Raises:
            TimedOut: the timeout is over.
        """
        left = self.began + self.timeout - time.monotonic()
        if left <= 0:
            raise self._timed_out()
        return left

    def pause(self, problem: RankdError) -> float:
        """Seconds to wait before the next attempt, after an attempt failed.

        Raises:
            RankdError: the problem itself, if there is no next attempt.
        """
        if not problem.retried or self.tried >= self.retries:
            raise problem
        wait = _wait(self.tried, problem.retry_after)
        if time.monotonic() + wait >= self.began + self.timeout:
            raise problem
        self.tried += 1
        return wait

    @contextmanager
    def translated_errors(self) -> Iterator[None]:
        """Raise httpx' errors as ours."""
        try:
            yield
        except (httpx.TimeoutException, TimeoutError):
            raise self._timed_out() from None
        except httpx.ConnectError as problem:
            raise ConnectionFailed(f"cannot connect to {self.url}: {problem}") from problem
        except httpx.TransportError as problem:
            raise ConnectionLost(f"the connection to {self.url} broke: {problem}") from problem
        except httpx.DecodingError as problem:
            raise BadAnswer(
                f"{self.url} sent a body that cannot be decoded: {problem}"
            ) from problem

    def result(self, reply: httpx.Response, body: bytes) -> T:
        """The result of a response.

        Raises:
            RankdError: the status is not 200.
            BadAnswer: the body is not what rankd sends.
        """
        if reply.status_code != 200:
            raise _error(reply, body)
        try:
            return self.read(json.loads(body))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise BadAnswer(
                f"{self.url} answered, but not as rankd does (check base_url): {_excerpt(body)}",
                status=reply.status_code,
                request_id=reply.headers.get("X-Request-Id"),
            ) from None

    def _timed_out(self) -> TimedOut:
        return TimedOut(f"no answer from {self.url} within {self.timeout:g} seconds")


_BY_STATUS: dict[int, type[RankdError]] = {
    401: Unauthorized,
    403: Unauthorized,
    429: Overloaded,
    503: Unavailable,
    504: TimedOut,
}


def _error(reply: httpx.Response, body: bytes) -> RankdError:
    """The error of a response, from rankd or from a proxy on the way."""
    status = reply.status_code
    by_range = BadRequest if 400 <= status < 500 else ServerFault if status >= 500 else BadAnswer
    fields = _error_fields(body)
    return _BY_STATUS.get(status, by_range)(
        fields.get("message", f"HTTP {status} from {reply.url}: {_excerpt(body)}"),
        status=status,
        code=fields.get("code"),
        param=fields.get("param"),
        request_id=reply.headers.get("X-Request-Id"),
        retry_after=_retry_after(reply.headers.get("Retry-After")),
    )


def _error_fields(body: bytes) -> dict[str, str]:
    """The strings of OpenAI's error object, or the message of another server's error."""
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    if not isinstance(answer, dict):
        return {}
    error = answer.get("error") or answer.get("message") or answer.get("detail")
    fields = error if isinstance(error, dict) else {"message": error}
    return {name: text for name, text in fields.items() if isinstance(text, str)}


def _retry_after(value: str | None) -> float | None:
    """The header in seconds; it holds seconds or a date. None if it is missing or malformed."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        # A date without a zone is in UTC.
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        seconds = (date - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _wait(tried: int, retry_after: float | None) -> float:
    """Seconds before the next attempt; random, so that many clients do not retry at once."""
    if retry_after is not None:
        return min(retry_after, _MAX_RETRY_AFTER) + random.uniform(0, 0.1)
    return min(_FIRST_WAIT * 2.0 ** min(tried, 16), _MAX_WAIT) * random.uniform(0.5, 1)


def _excerpt(body: bytes) -> str:
    text = body[:200].decode(errors="replace")
    return repr(text) if text else "an empty body"
