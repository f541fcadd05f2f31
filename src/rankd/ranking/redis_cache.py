"""Scores shared by several servers, in Redis or what speaks like it.

It only ever saves work: every answer is awaited shortly, and one that does not come means
that scores are computed instead, and that nobody asks again for some seconds.
"""

from __future__ import annotations

import asyncio
import logging
import math
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import urlsplit

from rankd.errors import BadSettings
from rankd.telemetry import metrics

try:
    from redis.asyncio import BlockingConnectionPool, Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError
except ImportError:
    raise BadSettings(
        "cache_redis needs redis, which is not installed: pip install 'rankd[redis]'"
    ) from None

_log = logging.getLogger("rankd")

# Seconds: until an answer is given up, and until the next attempt after that.
TIMEOUT = 0.25
PAUSE = 5.0

_CONNECTIONS = 32
_WRITES = 64  # Under way at once; what comes on top is not kept.

# Scores of one command: packing and parsing it holds up the event loop, for up to a tenth of a
# millisecond for each that is written. And each command has its own time to be answered.
_MOST_READ, _MOST_WRITTEN = 1_000, 100

_PREFIX = b"rankd:"

# The logit, and half of its key: an answer to somebody else's question is noticed.
_VALUE = struct.Struct("<d8s")

Item = TypeVar("Item")

_LOST = (RedisError, OSError, UnicodeError)  # TimeoutError is an OSError.


class CircuitBreaker:
    """Whether something is worth asking, and one line in the log when that changes.

    Args:
        what: it is, in the log.
    """

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._clock = clock
        self._retry_at: float | None = None

    def may_try(self) -> bool:
        """True also for one of those who ask when the pause is over."""
        if self._retry_at is None:
            return True
        if self._clock() < self._retry_at:
            return False
        self._retry_at = self._clock() + PAUSE
        return True

    @property
    def is_open(self) -> bool:
        return self._retry_at is not None

    def failed(self, problem: Exception) -> None:
        metrics.CACHE_FAILURES.inc()
        if not self.is_open:
            reason = str(problem) or type(problem).__name__
            _log.warning("%s: %s; the server goes on without", self._what, reason)
        self._retry_at = self._clock() + PAUSE

    def worked(self) -> None:
        if self.is_open:
            _log.info("%s: works again", self._what)
        self._retry_at = None


class RedisCache:
    """A store of `ScoreCache` that lies in another process.

    Args:
        ttl: seconds that a score is kept.
        where: it lies, without its password.
    """

    def __init__(self, client: Redis, ttl: int, where: str) -> None:
        self._client = client
        self._ttl = ttl
        # Two: one that is full or a replica can be read, but not written.
        self._reading = CircuitBreaker(f"reading scores from Redis at {where}")
        self._writing = CircuitBreaker(f"writing scores to Redis at {where}")
        self._writes: set[asyncio.Task[None]] = set()

    async def ping(self) -> None:
        """Try it, so that the log says at once when it is not there."""
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._client.ping()
        except _LOST as problem:
            self._reading.failed(problem)

    async def get(self, keys: Sequence[bytes]) -> Mapping[bytes, float]:
        if not keys or not self._reading.may_try():
            return {}
        found: dict[bytes, float] = {}
        try:
            for some in _slices(keys, _MOST_READ):
                async with asyncio.timeout(TIMEOUT):
                    values = await self._client.mget([_PREFIX + key for key in some])
                logits = zip(some, map(_unpack, some, values), strict=True)
                found |= {key: logit for key, logit in logits if logit is not None}
        except _LOST as problem:
            self._reading.failed(problem)
        else:
            self._reading.worked()
        return found

    def put(self, logits: Mapping[bytes, float]) -> None:
        """Write them behind the caller's back: no answer waits for it."""
        if not logits or self._reading.is_open or len(self._writes) >= _WRITES:
            return
        if self._writing.may_try():
            task = asyncio.create_task(self._write(dict(logits)))
            self._writes.add(task)
            task.add_done_callback(self._writes.discard)

    async def _write(self, logits: Mapping[bytes, float]) -> None:
        try:
            for some in _slices(list(logits.items()), _MOST_WRITTEN):
                pipeline = self._client.pipeline(transaction=False)
                for key, logit in some:
                    pipeline.set(_PREFIX + key, _VALUE.pack(logit, key[:8]), ex=self._ttl)
                async with asyncio.timeout(TIMEOUT):
                    await pipeline.execute()
        except _LOST as problem:
            self._writing.failed(problem)
        else:
            self._writing.worked()

    async def close(self) -> None:
        """Wait for what is being written, which is not long."""
        if self._writes:
            await asyncio.wait(self._writes)
        await self._client.aclose()


def _slices(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _unpack(key: bytes, value: object) -> float | None:
    if not isinstance(value, bytes) or len(value) != _VALUE.size:
        return None
    logit, half = _VALUE.unpack(value)
    return float(logit) if half == key[:8] and math.isfinite(logit) else None


@asynccontextmanager
async def open_redis(url: str, ttl: int) -> AsyncIterator[RedisCache]:
    """A store at a URL; one that cannot be reached is asked again later.

    Raises:
        BadSettings: the URL is none.
    """
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=TIMEOUT,
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            retry=Retry(NoBackoff(), 0),
        )
        # Connects nowhere, but knows what the URL may ask for.
        pool.make_connection()  # type: ignore[no-untyped-call]
        where = _where(url)
    except (TypeError, ValueError):
        # Never the URL itself: it may hold a password.
        raise BadSettings(
            "cache_redis must be a URL such as redis://HOST:6379/0, rediss://… or unix://PATH"
        ) from None
    cache = RedisCache(Redis.from_pool(pool), ttl, where)
    try:
        await cache.ping()
        yield cache
    finally:
        await cache.close()


def _where(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path
