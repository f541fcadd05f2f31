"""Limits of each API key: requests and tokens per minute, and concurrent requests.

The `limits` library counts, in a sliding window, in memory or in a Redis that several
servers share. Concurrent requests are always counted by each server for itself. While Redis
fails, requests pass unlimited: a lost counter must not stop the service.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import ConfigurationError

from rankd.config.settings import Settings
from rankd.errors import BadSettings, TooLarge, TooManyRequests
from rankd.installing import install_command
from rankd.ranking.circuit_breaker import CircuitBreaker
from rankd.telemetry import metrics

Storage = MemoryStorage | RedisStorage

# Seconds that Redis may take to answer.
_REDIS_TIMEOUT = 0.25


class RateLimiter:
    """Counts what each caller uses, and refuses what is over a limit. 0 means no limit.

    Args:
        requests: requests per minute.
        tokens: computed tokens per minute; tokens of cached scores are free.
        concurrency: concurrent requests.
        storage: holds the counts per minute; None if neither is limited.
        clock: a monotonic clock, in seconds.

    Attributes:
        is_enabled: whether there is any limit.
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
        self._requests = _MinuteLimit("requests", requests)
        self._tokens = _MinuteLimit("tokens", tokens)
        self.concurrency = concurrency
        self.is_enabled = bool(requests or tokens or concurrency)
        self._running: Counter[str] = Counter()
        self._storage = storage
        self._window = SlidingWindowCounterRateLimiter(storage) if storage else None
        self._breaker = CircuitBreaker(
            "counting rate limits in Redis",
            fallback="keys are not limited until it works again",
            failures=metrics.RATE_LIMIT_BACKEND_ERRORS,
            clock=clock,
        )

    @asynccontextmanager
    async def call(self, caller: str) -> AsyncIterator[None]:
        """Admit one request, which counts as running until the block ends.

        Raises:
            TooManyRequests: the caller has used its requests of this minute, or too many
                of its requests are running.
        """
        self._check_concurrency(caller)
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
            TooLarge: the request has more tokens than the limit of a whole minute.
            TooManyRequests: it has more than remain of this minute.
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

    def _check_concurrency(self, caller: str) -> None:
        running = self._running.get(caller, 0)
        if self.concurrency and running >= self.concurrency:
            raise _refused(
                "key_concurrency",
                f"{running:,} requests of this key are running; "
                f"the limit is {self.concurrency:,} at a time: wait until one ends",
                1,
            )

    async def _spend(self, minute_limit: _MinuteLimit, caller: str, cost: int) -> None:
        if not minute_limit.limit or not cost or not self._breaker.allows_call():
            return
        try:
            async with asyncio.timeout(None if self._is_local else _REDIS_TIMEOUT):
                seconds = await self._hit(minute_limit, caller, cost)
        except Exception as problem:
            # Any error: a reply that breaks the protocol makes the client raise a ValueError, too.
            # The library wraps the Redis client's error, which says more.
            cause = problem.__cause__
            self._breaker.failed(cause if isinstance(cause, Exception) else problem)
            return
        self._breaker.succeeded()
        if seconds:
            unit, limit = minute_limit.unit, minute_limit.limit
            raise _refused(
                f"key_{unit}",
                f"this request needs {cost:,} of the key's {unit}, and fewer are left of this "
                f"minute; the limit is {limit:,} {unit} a minute: "
                f"try again in {seconds:,} s",
                seconds,
            )

    async def _hit(self, minute_limit: _MinuteLimit, caller: str, cost: int) -> int:
        """Count a cost; 0 if it fits, else the seconds until it will."""
        assert self._window is not None
        assert self._storage is not None
        item, names = minute_limit.item, (minute_limit.unit, caller)
        if await self._window.hit(item, *names, cost=cost):
            return 0
        stats = await self._storage.get_sliding_window(item.key_for(*names), item.get_expiry())
        previous, _, current, _ = stats
        if not previous and not current:
            raise ValueError("it refuses a request although it has counted none")
        return minute_limit.seconds_until_fits(cost, *stats)

    @property
    def _is_local(self) -> bool:
        return isinstance(self._storage, MemoryStorage)


class _MinuteLimit:
    """At most `limit` of a unit in any sixty seconds."""

    def __init__(self, unit: str, limit: int) -> None:
        self.unit = unit
        self.limit = limit
        self.item: RateLimitItem = RateLimitItemPerMinute(max(limit, 1), namespace="rankd")

    def seconds_until_fits(
        self, cost: int, previous: int, previous_ttl: float, current: int, current_ttl: float
    ) -> int:
        """Whole seconds until a cost fits into the sliding window.

        The previous minute counts in proportion to its overlap with the last sixty seconds.

        Args:
            previous, current: units used in the previous and in the current minute.
            previous_ttl, current_ttl: seconds until these counts expire.
        """
        minute = float(self.item.get_expiry())
        room = self.limit - cost
        if previous and current <= room:
            seconds = previous_ttl - (room - current) * minute / previous
        else:
            seconds = current_ttl % minute + minute * (1 - room / max(current, 1))
        return max(1, min(math.ceil(seconds), 2 * int(minute)))


def _refused(reason: str, message: str, retry_after: int) -> TooManyRequests:
    metrics.REFUSED.labels(reason).inc()
    problem = TooManyRequests(message)
    problem.retry_after = retry_after
    return problem


@asynccontextmanager
async def open_rate_limiter(settings: Settings) -> AsyncIterator[RateLimiter]:
    """The limits in the settings. Closes the connections to Redis at the end.

    Raises:
        BadSettings: the URL of Redis is invalid, or its library is not installed. Redis
            itself need not run yet.
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
        # The messages never quote the URL, which may hold a password.
        raise BadSettings("limits_redis must begin with redis://, rediss:// or redis+unix://")
    try:
        pool = _pool(url)
        storage = RedisStorage(
            f"async+{url}", implementation="redispy", wrap_exceptions=True, connection_pool=pool
        )
    except (ImportError, ConfigurationError):
        raise BadSettings(
            f"limits_redis needs redis, which is not installed: {install_command('redis')}"
        ) from None
    except (TypeError, ValueError):
        raise BadSettings("limits_redis must be a URL such as redis://HOST:6379/0") from None
    stack.push_async_callback(pool.aclose)
    return storage


def _pool(url: str) -> Any:
    from redis.asyncio import ConnectionPool
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    pool = ConnectionPool.from_url(
        url.replace("redis+unix://", "unix://"),
        socket_timeout=_REDIS_TIMEOUT,
        socket_connect_timeout=_REDIS_TIMEOUT,
        retry=Retry(NoBackoff(), 0),  # A request waits for the answer.
    )
    # Does not connect, but checks the options in the URL.
    pool.make_connection()  # type: ignore[no-untyped-call]
    return pool
