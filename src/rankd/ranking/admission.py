"""Who may wait: a request is admitted whole, or refused whole before it runs.

Pure bookkeeping on an injected clock. It counts requests from the moment their body is
there, and tokens from the moment they are priced until they are scored, as `usage` counts
them: every pair that has to be computed, template included.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rankd.errors import RankError, TooLarge, TooManyRequests
from rankd.telemetry import metrics

# Seconds of work over which the rate is measured; older work says little of today's load.
_WINDOW = 30.0
_GRAIN = 0.1

# What Retry-After may say: sooner is a hammer, later is a guess about another load.
_SOONEST, _LATEST = 1, 60


class Ticket:
    """One request's place. Made by `Admission.enter`, which also takes it back."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.tokens = 0

    def admit(self, tokens: int) -> None:
        """Let the request wait with so many tokens, all of them.

        Raises:
            TooLarge: so many can never be admitted.
            Overloaded: they do not fit beside what waits now.
        """
        self._admission.check(tokens)
        self.tokens = tokens
        self._admission.take(tokens)

    def done(self, unscored: int = 0) -> None:
        """Its tokens were scored, but for so many: they count as drained."""
        tokens, self.tokens = self.tokens - unscored, unscored
        self._admission.give_back(tokens, scored=True)

    def leave(self) -> None:
        """Whatever was not scored is given back, and is no sign of speed."""
        tokens, self.tokens = self.tokens, 0
        self._admission.give_back(tokens, scored=False)


class _BackgroundTicket(Ticket):
    """A place that takes none from others."""

    def admit(self, tokens: int) -> None:
        self._admission.refuse_too_large(tokens)

    def done(self, unscored: int = 0) -> None:
        """Nobody counts it."""

    def leave(self) -> None:
        """Nobody counts it."""


class Admission:
    """What waits, and what may join it.

    Args:
        max_request_tokens: of one request; more is a 413.
        max_waiting_requests: more is a 429.
        max_waiting_tokens: of all requests; more is a 429. A request that is larger by
            itself is admitted when no other tokens wait, so that it is slow but not lost.

    Of each limit 0 is none.
    """

    def __init__(
        self,
        *,
        max_request_tokens: int = 0,
        max_waiting_requests: int = 0,
        max_waiting_tokens: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_request_tokens = max_request_tokens
        self.max_waiting_requests = max_waiting_requests
        self.max_waiting_tokens = max_waiting_tokens
        self.requests = 0
        self.tokens = 0
        self._drain = _DrainRate(clock)

    @contextmanager
    def enter(self, fewest: int = 1) -> Iterator[Ticket]:
        """A place for one request, given back however the block ends.

        Args:
            fewest: tokens that the request has at least. What is refused for them need
                not be encoded.

        Raises:
            TooLarge: it can never be admitted.
            Overloaded: too many wait already.
        """
        self._check_count()
        self.check(fewest)
        ticket = Ticket(self)
        self._count(+1)
        try:
            yield ticket
        finally:
            self._count(-1)
            ticket.leave()

    @contextmanager
    def enter_background(self, fewest: int = 1) -> Iterator[Ticket]:
        """As `enter`, for work in the background: it waits for nobody's room and fills none.

        Raises:
            TooLarge: it can never be admitted.
        """
        self.refuse_too_large(fewest)
        yield _BackgroundTicket(self)

    def check(self, tokens: int) -> None:
        """Raise what `Ticket.admit` would for so many tokens; none are always let in."""
        self.refuse_too_large(tokens)
        self.check_room(tokens)

    def fits(self, tokens: int) -> bool:
        """Whether there is room for so many tokens now."""
        limit = self.max_waiting_tokens
        # A request above the limit needs an empty queue, others only room.
        return not (limit and tokens and self.tokens and self.tokens + tokens > limit)

    def check_room(self, tokens: int, measure: str = "or more") -> None:
        """Raise `Overloaded` when so many tokens do not fit now.

        Args:
            measure: how sure the number is, in the sentence.
        """
        if self.fits(tokens):
            return
        limit = self.max_waiting_tokens
        ahead = min(self.tokens, self.tokens + tokens - limit)
        raise _refused(
            "waiting_tokens",
            TooManyRequests(
                f"{self.tokens:,} tokens wait already and this request has {tokens:,} "
                f"{measure}; the limit is {limit:,}"
            ),
            self.seconds_for(ahead),
        )

    def refuse_too_large(self, tokens: int) -> None:
        """Raises `TooLarge` for more tokens than one request may have."""
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
            # One of them must end; nobody knows which, so it is one of mean size.
            raise _refused(
                "waiting_requests",
                TooManyRequests(f"{self.requests:,} requests wait already; the limit is {limit:,}"),
                self.seconds_for(self.tokens // self.requests),
            )

    def seconds_for(self, tokens: int) -> int:
        """Whole seconds in which so many of the waiting tokens drain, from 1 to 60."""
        rate = self._drain.rate()
        # Nothing measured: as long again as the first requests have already taken.
        seconds = tokens / rate if rate else self._drain.busy()
        return max(_SOONEST, min(_LATEST, math.ceil(seconds)))

    def take(self, tokens: int) -> None:
        if not self.tokens and tokens:
            self._drain.start()
        self._set_tokens(self.tokens + tokens)

    def give_back(self, tokens: int, *, scored: bool) -> None:
        if not tokens:
            return
        if scored:
            self._drain.finish(tokens)
        self._set_tokens(self.tokens - tokens)
        if not self.tokens:
            self._drain.stop()
        metrics.DRAIN_RATE.set(self._drain.rate())

    def _set_tokens(self, tokens: int) -> None:
        self.tokens = tokens
        metrics.WAITING_TOKENS.set(tokens)

    def _count(self, change: int) -> None:
        self.requests += change
        metrics.WAITING_REQUESTS.set(self.requests)


@dataclass(slots=True)
class _Finished:
    at: float
    tokens: int


class _DrainRate:
    """Tokens finished for each second of work, over a sliding window.

    Its time stands still while nothing waits: an idle night says nothing of the speed.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._worked = 0.0
        self._since: float | None = None
        self._finished: deque[_Finished] = deque()
        self._before = 0.0  # When the last one finished that is no longer remembered.
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
        if self._finished and now - self._finished[-1].at < _GRAIN:
            # Thousands of small requests a second are not remembered one by one.
            self._finished[-1].tokens += tokens
        else:
            self._finished.append(_Finished(now, tokens))

    def rate(self) -> float:
        """Tokens per second; 0 while nothing was finished in the window."""
        now = self.busy()
        # The last one stays: an old rate is better than none.
        while len(self._finished) > 1 and self._finished[0].at <= now - _WINDOW:
            oldest = self._finished.popleft()
            self._before, self._sum = oldest.at, self._sum - oldest.tokens
        if not self._finished:
            return 0.0
        # What finished since then took all the time since then, be it one long request.
        return self._sum / max(now - self._before, 0.001)


def _refused(reason: str, problem: RankError, retry_after: int | None = None) -> RankError:
    """Count a refusal, and say when to come again."""
    metrics.REFUSED.labels(reason).inc()
    if retry_after is not None:
        problem.retry_after = retry_after
    return problem
