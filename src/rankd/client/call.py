"""One call, its attempts and the waits between them; all of it but input and output."""

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

# Seconds before the second attempt; each further one waits twice as long, up to the longest.
_FIRST_WAIT = 0.5
_LONGEST_WAIT = 8.0
_LONGEST_RETRY_AFTER = 30.0


@dataclass(slots=True)
class Call(Generic[T]):
    """One call from its first attempt to its last.

    Attributes:
        read: makes the result of the answer's JSON.
        timeout: seconds since it began, for all attempts.
        retries: further attempts it may have.
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
        """Seconds until it is of no use; never 0.

        Raises:
            TimedOut: there are none.
        """
        left = self.began + self.timeout - time.monotonic()
        if left <= 0:
            raise self._late()
        return left

    def pause(self, problem: RankdError) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            RankdError: the problem itself, where no further attempt is due.
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
        """Raises ours for httpx'."""
        try:
            yield
        except (httpx.TimeoutException, TimeoutError):
            raise self._late() from None
        except httpx.ConnectError as problem:
            raise ConnectionFailed(f"cannot connect to {self.url}: {problem}") from problem
        except httpx.TransportError as problem:
            raise ConnectionLost(f"the connection to {self.url} broke: {problem}") from problem
        except httpx.DecodingError as problem:
            raise BadAnswer(f"{self.url} sent what cannot be read: {problem}") from problem

    def answer(self, reply: httpx.Response, body: bytes) -> T:
        """What the server said.

        Raises:
            RankdError: it said no, or nothing that rankd says.
        """
        if reply.status_code != 200:
            raise _refusal(reply, body)
        try:
            return self.read(json.loads(body))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise BadAnswer(
                f"{self.url} answered what rankd never does: {_excerpt(body)}",
                status=reply.status_code,
                request_id=reply.headers.get("X-Request-Id"),
            ) from None

    def _late(self) -> TimedOut:
        return TimedOut(f"no answer from {self.url} within {self.timeout:g} seconds")


_BY_STATUS: dict[int, type[RankdError]] = {
    401: Unauthorized,
    403: Unauthorized,
    429: Overloaded,
    503: Unavailable,
    504: TimedOut,
}


def _refusal(reply: httpx.Response, body: bytes) -> RankdError:
    """The error that an answer is, whoever on the way wrote it."""
    status = reply.status_code
    by_range = BadRequest if 400 <= status < 500 else ServerFault if status >= 500 else BadAnswer
    said = _envelope(body)
    return _BY_STATUS.get(status, by_range)(
        said.get("message", f"HTTP {status} from {reply.url}: {_excerpt(body)}"),
        status=status,
        code=said.get("code"),
        param=said.get("param"),
        request_id=reply.headers.get("X-Request-Id"),
        retry_after=_retry_after(reply.headers.get("Retry-After")),
    )


def _envelope(body: bytes) -> dict[str, str]:
    """The texts of OpenAI's error object; of other people's, what stands in its place."""
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    if not isinstance(answer, dict):
        return {}
    said = answer.get("error") or answer.get("message") or answer.get("detail")
    fields = said if isinstance(said, dict) else {"message": said}
    return {name: text for name, text in fields.items() if isinstance(text, str)}


def _retry_after(value: str | None) -> float | None:
    """Seconds, which the header says as such or as a date; None when it says neither."""
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
    """Seconds before the next attempt, never quite the same: many clients must not come at once."""
    if retry_after is not None:
        return min(retry_after, _LONGEST_RETRY_AFTER) + random.uniform(0, 0.1)
    return min(_FIRST_WAIT * 2.0 ** min(tried, 16), _LONGEST_WAIT) * random.uniform(0.5, 1)


def _excerpt(body: bytes) -> str:
    text = body[:200].decode(errors="replace")
    return repr(text) if text else "an empty body"
