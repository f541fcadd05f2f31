"""Admission: bounds the requests and tokens that wait for the engine.

A request is admitted with all of its tokens, or refused before any of it runs. Requests are
counted as soon as their body is read; tokens from their admission until they are scored.
Tokens are those of every pair that has to be computed, template included, as in `usage`.
No I/O; the clock is injected.
"""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rankd.errors import RankError, TooLarge, TooManyRequests
from rankd.telemetry import metrics

# The drain rate is measured over this many seconds of work; older work was a different load.
_WINDOW_SECONDS = 30.0
_BUCKET_SECONDS = 0.1

# Bounds of Retry-After, in seconds. Below, clients retry too often; above, it is a guess.
_MIN_RETRY_AFTER, _MAX_RETRY_AFTER = 1, 60


@dataclass(slots=True)
class Ticket:
    """The tokens of one admitted request. Made, and in the end released, by `Admission.enter`."""

    _admission: Admission
    tokens: int = 0

    def admit(self, tokens: int) -> None:
        """Admit the request with this many tokens, all or none.

        Raises:
            TooLarge: the request exceeds the limit of one request.
            TooManyRequests: the tokens do not fit beside those that wait now.
        """
        self._admission.check(tokens)
        self.tokens = tokens
        self._admission.take(tokens)

    def resize(self, tokens: int) -> None:
        """Change the tokens of an admitted request, without a check: an estimate became exact."""
        more, self.tokens = tokens - self.tokens, tokens
        if more > 0:
            self._admission.take(more)
        else:
            self._admission.give_back(-more, scored=False)

    def done(self, unscored: int = 0) -> None:
        """Release the tokens that were scored; they count towards the drain rate.

        Args:
            unscored: tokens that were not scored in time; they stay until `leave`.
        """
        tokens, self.tokens = self.tokens - unscored, unscored
        self._admission.give_back(tokens, scored=True)

    def leave(self) -> None:
        """Release the tokens that were not scored; they do not count towards the drain rate."""
        tokens, self.tokens = self.tokens, 0
        if tokens:
            self._admission.give_back(tokens, scored=False)


class _BackgroundTicket(Ticket):
    """The ticket of a background request, whose tokens are not counted."""

    def admit(self, tokens: int) -> None:
        self._admission.refuse_too_large(tokens)

    def resize(self, tokens: int) -> None:
        """Does nothing: no tokens were counted."""

    def done(self, unscored: int = 0) -> None:
        """Does nothing: no tokens were counted."""

    def leave(self) -> None:
        """Does nothing: no tokens were counted."""


class Admission:
    """Counts what waits for the engine, and refuses what is over a limit. 0 means no limit.

    Args:
        max_request_tokens: tokens of one request; beyond it clients get 413.
        max_waiting_requests: requests in flight; beyond it clients get 429.
        max_waiting_tokens: tokens of all requests in flight; beyond it clients get 429. A
            single request above this limit is admitted while no other tokens wait.
        clock: a monotonic clock, in seconds.
        jitter: random numbers in [0, 1), for Retry-After.
    """

    def __init__(
        self,
        *,
        max_request_tokens: int = 0,
        max_waiting_requests: int = 0,
        max_waiting_tokens: int = 0,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.max_request_tokens = max_request_tokens
        self.max_waiting_requests = max_waiting_requests
        self.max_waiting_tokens = max_waiting_tokens
        self.requests = 0
        self.tokens = 0
        self._drain = _DrainRate(clock)
        self._jitter = jitter

    @contextmanager
    def enter(self, min_tokens: int = 1) -> Iterator[Ticket]:
        """Count one request, and release it and its tokens when the block ends.

        Args:
            min_tokens: lower bound of the request's tokens. A request that is over a limit
                by this bound is refused before it is encoded.

        Raises:
            TooLarge: the request exceeds the limit of one request.
            TooManyRequests: too many requests or tokens wait already.
        """
        if self.max_waiting_requests:
            self._check_count()
        if min_tokens:
            self.check(min_tokens)
        ticket = Ticket(self)
        self.requests += 1
        metrics.WAITING_REQUESTS.set(self.requests)
        try:
            yield ticket
        finally:
            self.requests -= 1
            metrics.WAITING_REQUESTS.set(self.requests)
            ticket.leave()

    @contextmanager
    def enter_background(self, min_tokens: int = 1) -> Iterator[Ticket]:
        """As `enter`, for background work, which neither counts nor is limited as waiting.

        Raises:
            TooLarge: the request exceeds the limit of one request.
        """
        self.refuse_too_large(min_tokens)
        yield _BackgroundTicket(self)

    def check(self, tokens: int) -> None:
        """Raise what `Ticket.admit` would raise for this many tokens; 0 tokens always fit."""
        self.refuse_too_large(tokens)
        # Usually nothing else waits.
        if self.tokens:
            self.check_room(tokens)

    def fits(self, tokens: int) -> bool:
        """Whether this many tokens fit beside those that wait now."""
        limit = self.max_waiting_tokens
        # A request above the limit needs an empty queue.
        return not (limit and tokens and self.tokens and self.tokens + tokens > limit)

    def check_room(self, tokens: int, measure: str = "or more") -> None:
        """Raise `TooManyRequests` if this many tokens do not fit now.

        Args:
            measure: how exact the number is, for the message.
        """
        if self.fits(tokens):
            return
        limit = self.max_waiting_tokens
        ahead = min(self.tokens, self.tokens + tokens - limit)
        raise _refused(
            "waiting_tokens",
            TooManyRequests(
                f"{self.tokens:,} tokens wait already and this request has {tokens:,} "
                f"{measure}; the limit is {limit:,}: try again later"
            ),
            self.seconds_for(ahead),
        )

    def refuse_too_large(self, tokens: int) -> None:
        """Raise `TooLarge` if one request may not have this many tokens."""
        if self.max_request_tokens and tokens > self.max_request_tokens:
            raise _refused(
                "request_tokens",
                TooLarge(
                    f"the request has {tokens:,} tokens or more; the limit is "
                    f"{self.max_request_tokens:,}: send fewer or shorter documents",
                    param="documents",
                ),
            )

    def _check_count(self) -> None:
        limit = self.max_waiting_requests
        if limit and self.requests >= limit:
            # One request must end first. Which one is unknown, so it is taken to be of mean size.
            raise _refused(
                "waiting_requests",
                TooManyRequests(
                    f"{self.requests:,} requests wait already; the limit is {limit:,}: "
                    "try again later"
                ),
                self.seconds_for(self.tokens // self.requests),
            )

    def seconds_for(self, tokens: int) -> int:
        """Whole seconds after which to try again, from 1 to 60.

        A random time between the one in which this many waiting tokens drain, and the one in
        which all of them do: clients that were refused together do not come back together.
        """
        if rate := self._drain.rate():
            earliest, latest = tokens / rate, self.tokens / rate
        else:
            # Before anything was measured: as long again as the first requests have taken so far.
            earliest, latest = self._drain.busy(), 2 * self._drain.busy()
        seconds = earliest + self._jitter() * max(0.0, latest - earliest)
        return max(_MIN_RETRY_AFTER, min(_MAX_RETRY_AFTER, math.ceil(seconds)))

    def take(self, tokens: int) -> None:
        """Count tokens as waiting."""
        if not self.tokens and tokens:
            self._drain.start()
        self.tokens += tokens
        metrics.WAITING_TOKENS.set(self.tokens)

    def give_back(self, tokens: int, *, scored: bool) -> None:
        """Stop counting tokens as waiting; scored ones count towards the drain rate."""
        if not tokens:
            return
        if scored:
            self._drain.finish(tokens)
        self.tokens -= tokens
        metrics.WAITING_TOKENS.set(self.tokens)
        if not self.tokens:
            self._drain.stop()
        metrics.DRAIN_RATE.set(self._drain.rate())


@dataclass(slots=True)
class _Bucket:
    """Tokens that finished within a tenth of a second, and when the first of them did."""

    at: float
    tokens: int


class _DrainRate:
    """Tokens finished per second of work, over a sliding window.

    Its clock stops while nothing waits, because idle time says nothing about speed.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._worked = 0.0
        self._since: float | None = None
        self._finished: deque[_Bucket] = deque()
        self._window_start = 0.0  # When the newest bucket outside the window finished.
        self._sum = 0

    def start(self) -> None:
        self._since = self._clock()

    def stop(self) -> None:
        self._worked, self._since = self.busy(), None

    def busy(self) -> float:
        """Seconds of work so far."""
        return self._worked + (0.0 if self._since is None else self._clock() - self._since)

    def finish(self, tokens: int) -> None:
        now = self.busy()
        self._sum += tokens
        if self._finished and now - self._finished[-1].at < _BUCKET_SECONDS:
            # Bounds the memory for thousands of small requests per second.
            self._finished[-1].tokens += tokens
        else:
            self._finished.append(_Bucket(now, tokens))

    def rate(self) -> float:
        """Tokens per second; 0 before anything finished."""
        now = self.busy()
        # The last bucket stays: an old rate is better than none.
        while len(self._finished) > 1 and self._finished[0].at <= now - _WINDOW_SECONDS:
            oldest = self._finished.popleft()
            self._window_start, self._sum = oldest.at, self._sum - oldest.tokens
        if not self._finished:
            return 0.0
        # Everything in the window took all the time since its start, even one long request.
        return self._sum / max(now - self._window_start, 0.001)


def _refused(reason: str, problem: RankError, retry_after: int | None = None) -> RankError:
    """Count a refusal in the metrics, and set its Retry-After."""
    metrics.REFUSED.labels(reason).inc()
    if retry_after is not None:
        problem.retry_after = retry_after
    return problem
