"""A Redis that breaks its protocol counts as a lost one: no request fails, nothing is believed."""

from __future__ import annotations

import asyncio
import logging

import pytest

from rankd.config.settings import Settings
from rankd.ranking.rate_limits import open_rate_limiter
from rankd.ranking.redis_cache import open_redis
from support.nonsense_server import answering

pytestmark = pytest.mark.anyio

NONSENSE = {
    "a length below zero": b"$-5\r\n",
    "an array below zero": b"*-1\r\n",
    "a map": b"%1\r\n+a\r\n+b\r\n",
    "half a map": b"%1\r\n",
    "a big number": b"(123\r\n",
    "a big number that is none": b"(x\r\n",
    "a number that is none": b":x\r\n",
    "an array of another length": b"*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n",
    "an empty array": b"*0\r\n",
    "values of other types": b"*2\r\n:1\r\n*1\r\n+a\r\n",
    "a text": b"+nonsense\r\n",
    "a number": b":7\r\n",
    "nothing": b"$-1\r\n",
    "null": b"_\r\n",
    "a boolean": b"#t\r\n",
    "a double": b",nan\r\n",
    "a push": b">2\r\n+a\r\n+b\r\n",
    "deep arrays": b"*1\r\n" * 5_000,
    "a huge array": b"*1000000000\r\n:1\r\n",
    "a huge text": b"$99999999999\r\nabc",
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "bytes": bytes(range(256)),
    "no end of a line": b"+" + b"a" * 10_000,
    "an error": b"-LOADING\r\n",
    "an unknown error": b"-\r\n",
}

KEYS = [bytes([number]) * 16 for number in range(2)]


@pytest.mark.parametrize("reply", NONSENSE.values(), ids=NONSENSE)
async def test_a_cache_that_speaks_nonsense_has_no_scores(reply: bytes) -> None:
    async with answering(reply) as port, open_redis(f"redis://127.0.0.1:{port}/0", 60) as cache:
        for _ in range(4):
            assert await cache.get(KEYS) == {}
            cache.put(dict.fromkeys(KEYS, 1.0))
        # Raises what a write raised.
        await asyncio.gather(*cache._write_tasks)


@pytest.mark.parametrize("reply", NONSENSE.values(), ids=NONSENSE)
async def test_limits_in_a_redis_that_speaks_nonsense_let_requests_pass(reply: bytes) -> None:
    async with answering(reply) as port:
        settings = Settings(
            key_requests_per_minute=1_000,
            key_tokens_per_minute=1_000_000,
            limits_redis=f"redis://127.0.0.1:{port}/0",
        )
        async with open_rate_limiter(settings) as limits:
            for _ in range(4):
                async with limits.call("ann"):
                    await limits.charge("ann", 10)


async def test_nonsense_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rankd")
    async with (
        answering(b"$-5\r\n") as port,
        open_redis(f"redis://127.0.0.1:{port}/0", 60) as cache,
    ):
        for _ in range(4):
            await cache.get(KEYS)

    [line] = [record.getMessage() for record in caplog.records if record.name == "rankd"]
    assert f"reading scores from Redis at 127.0.0.1:{port} failed: " in line
