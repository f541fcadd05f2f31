"""A cache of scores in Redis, shared by several servers.

Redis only ever saves work. Each command has a short timeout; if it fails, the scores are
computed, and Redis is not used again for some seconds.
"""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import urlsplit

from rankd.errors import BadSettings
from rankd.installing import install_command
from rankd.ranking.circuit_breaker import CircuitBreaker
from rankd.telemetry import metrics

try:
    from redis.asyncio import BlockingConnectionPool, Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
except ImportError:
    raise BadSettings(
        f"cache_redis needs redis, which is not installed: {install_command('redis')}"
    ) from None

# Seconds that one command may take.
TIMEOUT = 0.25

_MAX_CONNECTIONS = 32
_MAX_WRITES = 64  # Concurrent writes; further scores are not stored.

# Scores in one command. Packing and parsing block the event loop, writes for up to 0.1 ms
# for each score; and each command has its own timeout.
_READ_BATCH, _WRITE_BATCH = 1_000, 100

_KEY_PREFIX = b"rankd:"

# The logit, and half of its key, so that a value stored under a wrong key is noticed.
_VALUE = struct.Struct("<d8s")

Item = TypeVar("Item")


class RedisCache:
    """A `Store` of `ScoreCache` in Redis.

    Args:
        ttl: seconds that a score is kept.
        address: of Redis, without its password, for the log.
    """

    def __init__(self, client: Redis, ttl: int, address: str) -> None:
        self._client = client
        self._ttl = ttl
        # Two, because a replica or a Redis without free memory can be read but not written.
        self._reads = _breaker(f"reading scores from Redis at {address}")
        self._writes = _breaker(f"writing scores to Redis at {address}")
        self._write_tasks: set[asyncio.Task[None]] = set()

    async def ping(self) -> None:
        """Test the connection, so that the log says at once if Redis cannot be reached."""
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._client.ping()
        except Exception as problem:
            # Any error: a reply that breaks Redis's protocol makes the client raise a ValueError
            # or TypeError, too.
            self._reads.failed(problem)

    async def get(self, keys: Sequence[bytes]) -> Mapping[bytes, float]:
        """The stored logits of these keys; fewer or none if Redis fails."""
        if not keys or not self._reads.allows_call():
            return {}
        found: dict[bytes, float] = {}
        try:
            for batch in _batches(keys, _READ_BATCH):
                async with asyncio.timeout(TIMEOUT):
                    values = await self._client.mget([_KEY_PREFIX + key for key in batch])
                logits = zip(batch, map(_unpack, batch, values), strict=True)
                found |= {key: logit for key, logit in logits if logit is not None}
        except Exception as problem:
            self._reads.failed(problem)
        else:
            self._reads.succeeded()
        return found

    def put(self, logits: Mapping[bytes, float]) -> None:
        """Store logits in a background task; no response waits for it."""
        if not logits or self._reads.is_open or len(self._write_tasks) >= _MAX_WRITES:
            return
        if self._writes.allows_call():
            task = asyncio.create_task(self._write(dict(logits)))
            self._write_tasks.add(task)
            task.add_done_callback(self._write_tasks.discard)

    async def _write(self, logits: Mapping[bytes, float]) -> None:
        try:
            for batch in _batches(list(logits.items()), _WRITE_BATCH):
                pipeline = self._client.pipeline(transaction=False)
                for key, logit in batch:
                    pipeline.set(_KEY_PREFIX + key, _VALUE.pack(logit, key[:8]), ex=self._ttl)
                async with asyncio.timeout(TIMEOUT):
                    await pipeline.execute()
        except Exception as problem:
            self._writes.failed(problem)
        else:
            self._writes.succeeded()

    async def close(self) -> None:
        """Wait for running writes, then disconnect."""
        if self._write_tasks:
            await asyncio.wait(self._write_tasks)
        await self._client.aclose()


def _breaker(operation: str) -> CircuitBreaker:
    return CircuitBreaker(
        operation, fallback="the server continues without it", failures=metrics.CACHE_FAILURES
    )


def _batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _unpack(key: bytes, value: object) -> float | None:
    """The logit in a stored value; None if it is missing, malformed or of another key."""
    if not isinstance(value, bytes) or len(value) != _VALUE.size:
        return None
    logit, key_half = _VALUE.unpack(value)
    return float(logit) if key_half == key[:8] and math.isfinite(logit) else None


@asynccontextmanager
async def open_redis(url: str, ttl: int) -> AsyncIterator[RedisCache]:
    """A cache at a URL. If Redis cannot be reached, it is tried again later.

    Args:
        ttl: seconds that a score is kept.

    Raises:
        BadSettings: the URL is invalid.
    """
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_MAX_CONNECTIONS,
            timeout=TIMEOUT,
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            retry=Retry(NoBackoff(), 0),
        )
        # Does not connect, but checks the options in the URL.
        pool.make_connection()  # type: ignore[no-untyped-call]
        address = _address(url)
    except (TypeError, ValueError):
        # The message never quotes the URL, which may hold a password.
        raise BadSettings(
            "cache_redis must be a URL such as redis://HOST:6379/0, rediss://… or unix://PATH"
        ) from None
    cache = RedisCache(Redis.from_pool(pool), ttl, address)
    try:
        await cache.ping()
        yield cache
    finally:
        await cache.close()


def _address(url: str) -> str:
    """Host and port, or the path of a socket; never the password."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path
