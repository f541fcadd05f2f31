"""What one key may ask for: requests and tokens a minute, and requests at a time.

The counting is the `limits` library's sliding window: in memory, or in a Redis that
several servers share. Requests at a time are always this server's own. When the Redis does
not answer, requests pass: a lost counter must not be a lost service.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import ConfigurationError, StorageError

from rankd.config.settings import Settings
from rankd.errors import BadSettings, TooLarge, TooManyRequests
from rankd.telemetry import metrics

_log = logging.getLogger("rankd")

Storage = MemoryStorage | RedisStorage

# Seconds that a Redis may take for an answer, and after a failure is not asked again.
_PATIENCE = 0.25
_PAUSE = 5.0


class RateLimiter:
    """What the callers have used.

    Args:
        requests: a minute; of each limit 0 is none.
        tokens: a minute, of what has to be computed.
        concurrency: requests at a time.
        storage: where the minutes are counted.
    """

    def __init__(
        self,
        *,
        requests: int = 0,
        tokens: int = 0,
        concurrency: int = 0,
        storage: Storage | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._requests = _Minute("requests", requests)
        self._tokens = _Minute("tokens", tokens)
        self.concurrency = concurrency
        self._running: Counter[str] = Counter()
        self._storage = storage
        self._window = SlidingWindowCounterRateLimiter(storage) if storage else None
        self._clock = clock
        self._ask_again = 0.0

    @asynccontextmanager
    async def call(self, caller: str) -> AsyncIterator[None]:
        """Take one request in; it counts as running until the block ends.

        Raises:
            Overloaded: the caller has as many running, or had as many in this minute.
        """
        self._refuse_beyond_concurrency(caller)
        self._running[caller] += 1
        try:
            await self._spend(self._requests, caller, 1)
            yield
        finally:
            self._running[caller] -= 1
            if not self._running[caller]:
                del self._running[caller]

    async def charge(self, caller: str, tokens: int) -> None:
        """Count the tokens of a request that is about to be computed.

        Raises:
            TooLarge: more than a whole minute's.
            Overloaded: more than what is left of this minute's.
        """
        limit = self._tokens.limit
        if limit and tokens > limit:
            metrics.REFUSED.labels("key_tokens").inc()
            raise TooLarge(
                f"the request has {tokens:,} tokens; the limit of a key is {limit:,} tokens a "
                "minute: send fewer or shorter documents",
                param="documents",
            )
        await self._spend(self._tokens, caller, tokens)

    def _refuse_beyond_concurrency(self, caller: str) -> None:
        running = self._running.get(caller, 0)
        if self.concurrency and running >= self.concurrency:
            raise _refused(
                "key_concurrency",
                f"{running:,} requests of this key are running; "
                f"the limit is {self.concurrency:,} at a time",
                1,
            )

    async def _spend(self, minute: _Minute, caller: str, cost: int) -> None:
        if not minute.limit or not cost or self._clock() < self._ask_again:
            return
        try:
            async with asyncio.timeout(None if self._is_local else _PATIENCE):
                seconds = await self._hit(minute, caller, cost)
        except (StorageError, TimeoutError) as problem:
            self._lost(problem)
            return
        self._ask_again = 0.0
        if seconds:
            raise _refused(
                f"key_{minute.unit}",
                f"this key has used its {minute.unit} of this minute, or what is left of them is "
                f"less than {cost:,}; the limit is {minute.limit:,} {minute.unit} a minute",
                seconds,
            )

    async def _hit(self, minute: _Minute, caller: str, cost: int) -> int:
        """0 when the caller may go on, else the seconds until it may."""
        assert self._window is not None
        assert self._storage is not None
        item, names = minute.item, (minute.unit, caller)
        if await self._window.hit(item, *names, cost=cost):
            return 0
        stats = await self._storage.get_sliding_window(item.key_for(*names), item.get_expiry())
        return minute.wait(cost, *stats)

    @property
    def _is_local(self) -> bool:
        return isinstance(self._storage, MemoryStorage)

    def _lost(self, problem: Exception) -> None:
        metrics.LIMITS_LOST.inc()
        if not self._ask_again:
            # Once: it may stay away for hours.
            _log.warning(
                "the limits' Redis does not answer, so keys are not limited until it does (%s)",
                type(problem.__cause__ or problem).__name__,
            )
        self._ask_again = self._clock() + _PAUSE


class _Minute:
    """One limit: so many of a unit in any sixty seconds."""

    def __init__(self, unit: str, limit: int) -> None:
        self.unit = unit
        self.limit = limit
        self.item: RateLimitItem = RateLimitItemPerMinute(max(limit, 1), namespace="rankd")

    def wait(self, cost: int, before: int, before_ends: float, now: int, now_ends: float) -> int:
        """Seconds until a cost fits: the minute before counts by what overlaps of it."""
        minute = float(self.item.get_expiry())
        room = self.limit - cost
        if before and now <= room:
            seconds = before_ends - (room - now) * minute / before
        else:
            seconds = now_ends % minute + minute * (1 - room / max(now, 1))
        return max(1, min(math.ceil(seconds), 2 * int(minute)))


def _refused(reason: str, sentence: str, retry_after: int) -> TooManyRequests:
    metrics.REFUSED.labels(reason).inc()
    problem = TooManyRequests(sentence)
    problem.retry_after = retry_after
    return problem


@asynccontextmanager
async def open_rate_limiter(settings: Settings) -> AsyncIterator[RateLimiter]:
    """The limits that the settings choose; leaving closes the connections to Redis.

    Raises:
        BadSettings: the Redis cannot be spoken to; it need not be there.
    """
    async with AsyncExitStack() as stack:
        counted = settings.key_requests_per_minute or settings.key_tokens_per_minute
        yield RateLimiter(
            requests=settings.key_requests_per_minute,
            tokens=settings.key_tokens_per_minute,
            concurrency=settings.key_concurrency,
            storage=_storage(settings.limits_redis, stack) if counted else None,
        )


def _storage(url: str | None, stack: AsyncExitStack) -> Storage:
    if url is None:
        return MemoryStorage()
    if not url.startswith(("redis://", "rediss://", "redis+unix://")):
        # Never the URL itself: it may hold a password.
        raise BadSettings("limits_redis must begin with redis://, rediss:// or redis+unix://")
    try:
        pool = _pool(url)
        storage = RedisStorage(
            f"async+{url}", implementation="redispy", wrap_exceptions=True, connection_pool=pool
        )
    except (ImportError, ConfigurationError):
        raise BadSettings("limits_redis needs redis: pip install 'rankd[redis]'") from None
    except (TypeError, ValueError):
        raise BadSettings("limits_redis is no URL of a Redis: redis://HOST:PORT/0") from None
    stack.push_async_callback(pool.aclose)
    return storage


def _pool(url: str) -> Any:
    from redis.asyncio import ConnectionPool
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    pool = ConnectionPool.from_url(
        url.replace("redis+unix://", "unix://"),
        socket_timeout=_PATIENCE,
        socket_connect_timeout=_PATIENCE,
        retry=Retry(NoBackoff(), 0),  # Whoever waits for it waits for a request.
    )
    # Connects nowhere, but knows what the URL may ask for.
    pool.make_connection()  # type: ignore[no-untyped-call]
    return pool
