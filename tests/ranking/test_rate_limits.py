"""Rate limits of keys: per minute and concurrent, in memory and in a real Redis."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from rankd.config.settings import Settings
from rankd.errors import BadSettings, RankError, TooLarge, TooManyRequests
from rankd.ranking.rate_limits import RateLimiter, open_rate_limiter
from rankd.server.app import open_app
from rankd.types import RankRequest
from support.redis_server import REDIS_BINARY, RedisServer

pytestmark = pytest.mark.anyio

KEYS = ("key-of-ann", "key-of-bob")


@asynccontextmanager
async def limited(**settings: Any) -> AsyncIterator[RateLimiter]:
    async with open_rate_limiter(Settings(**settings)) as limits:
        yield limits


async def _request(limits: RateLimiter, caller: str, tokens: int = 0) -> None:
    async with limits.call(caller):
        await limits.charge(caller, tokens)


async def _refusal(limits: RateLimiter, caller: str, tokens: int = 0) -> RankError:
    with pytest.raises(RankError) as refusal:
        await _request(limits, caller, tokens)
    return refusal.value


async def test_without_limits_every_request_passes() -> None:
    async with limited() as limits:
        for _ in range(100):
            await _request(limits, "ann", 1_000_000)


async def test_each_caller_has_its_own_requests_per_minute() -> None:
    async with limited(key_requests_per_minute=3) as limits:
        for _ in range(3):
            await _request(limits, "ann")
        await _request(limits, "bob")

        refused = await _refusal(limits, "ann")

    assert isinstance(refused, TooManyRequests)
    assert "the limit is 3 requests a minute" in refused.message
    assert 1 <= (refused.retry_after or 0) <= 120


async def test_tokens_of_a_request_are_charged_all_or_none() -> None:
    async with limited(key_tokens_per_minute=1_000) as limits:
        await _request(limits, "ann", 700)
        refused = await _refusal(limits, "ann", 301)
        await _request(limits, "ann", 300)

        assert "the limit is 1,000 tokens a minute" in refused.message
        assert isinstance(await _refusal(limits, "ann", 1), TooManyRequests)
        assert isinstance(await _refusal(limits, "bob", 1_001), TooLarge)


async def test_requests_and_tokens_with_equal_limits_are_counted_separately() -> None:
    async with limited(key_requests_per_minute=5, key_tokens_per_minute=5) as limits:
        await _request(limits, "ann", 5)
        for _ in range(4):
            await _request(limits, "ann")


async def test_concurrency_is_released_when_a_request_ends_or_is_cancelled() -> None:
    async with limited(key_concurrency=1) as limits:
        started = asyncio.Event()

        async def hold() -> None:
            async with limits.call("ann"):
                started.set()
                await asyncio.sleep(60)

        holding = asyncio.create_task(hold())
        await started.wait()
        refused = await _refusal(limits, "ann")
        await _request(limits, "bob")
        holding.cancel()
        await asyncio.wait([holding])
        await _request(limits, "ann")

    assert "the limit is 1 at a time" in refused.message
    assert refused.retry_after == 1
    assert not limits._running


async def test_a_refused_request_does_not_count_as_running() -> None:
    async with limited(key_concurrency=1, key_requests_per_minute=1) as limits:
        await _request(limits, "ann")
        for _ in range(3):
            assert "requests a minute" in (await _refusal(limits, "ann")).message


# Over HTTP.


@asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with open_app(Settings(engine="fake", access_log=False, **settings)) as app:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://rankd") as http:
            yield http


BODIES = {
    "/v1/rerank": {"query": "q", "documents": ["d"]},
    "/voyage/v1/rerank": {"query": "q", "documents": ["d"]},
    "/v1/score": {"text_1": "q", "text_2": "d"},
    "/invocations": {"text_1": "q", "text_2": "d"},
    "/simple/batch_rerank": {"queries": ["q"], "documents": [["d"]]},
}


@pytest.mark.parametrize("path", BODIES)
async def test_a_key_is_limited_on_every_path_and_another_key_is_not(path: str) -> None:
    async with served(api_keys=KEYS, key_requests_per_minute=2) as http:

        async def post(key: str) -> httpx.Response:
            return await http.post(path, json=BODIES[path], headers={"x-api-key": key})

        statuses = [(await post(KEYS[0])).status_code for _ in range(2)]
        refused = await post(KEYS[0])
        other = await post(KEYS[1])

    assert statuses == [200, 200]
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert "2 requests a minute" in refused.json()["message"]
    assert KEYS[0] not in refused.text
    assert other.status_code == 200


async def test_keys_with_one_name_share_a_limit(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("search = the-old-key\nsearch = the-new-key\nother = another-key\n")

    async with served(api_keys_file=file, key_requests_per_minute=1) as http:
        statuses = [
            (
                await http.post("/v1/rerank", json=BODIES["/v1/rerank"], headers={"x-api-key": key})
            ).status_code
            for key in ("the-old-key", "the-new-key", "another-key")
        ]

    assert statuses == [200, 429, 200]


async def test_cached_documents_cost_a_key_no_tokens() -> None:
    async with served(key_tokens_per_minute=150) as http:
        body: dict[str, object] = {"query": "q", "documents": ["d"]}
        replies = [await http.post("/v1/rerank", json=body) for _ in range(5)]
        price = replies[0].json()["usage"]["total_tokens"]
        alone = body | {"cache": False}
        computed = [await http.post("/v1/rerank", json=alone) for _ in range(5)]

    assert 5 * price > 150
    assert [reply.status_code for reply in replies] == [200] * 5
    assert computed[-1].status_code == 429


async def test_callers_without_a_key_share_a_limit() -> None:
    async with served(key_requests_per_minute=1) as http:
        headers = {"x-api-key": "whatever"}
        one = await http.post("/v1/rerank", json=BODIES["/v1/rerank"])
        two = await http.post("/v1/rerank", json=BODIES["/v1/rerank"], headers=headers)

    assert (one.status_code, two.status_code) == (200, 429)


async def test_the_self_check_counts_towards_no_limit() -> None:
    # On the built-in model, because only a real one is checked.
    settings = Settings(key_requests_per_minute=1, threads=1)
    async with open_app(settings) as app:
        await app.state.service.ranker.rank(RankRequest("q", ("d",)))


# With a real Redis.

needs_redis = pytest.mark.skipif(REDIS_BINARY is None, reason="redis-server is not installed")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@needs_redis
async def test_servers_with_one_redis_share_the_limits_of_a_key(redis: RedisServer) -> None:
    settings: dict[str, Any] = {"key_requests_per_minute": 3, "key_tokens_per_minute": 100}
    settings["limits_redis"] = redis.url
    async with limited(**settings) as one, limited(**settings) as other:
        await _request(one, "ann", 10)
        await _request(other, "ann", 20)
        tokens = await _refusal(other, "ann", 71)
        requests = await _refusal(one, "ann", 1)
        await _request(other, "bob", 100)

    assert "100 tokens a minute" in tokens.message
    assert "3 requests a minute" in requests.message
    assert 1 <= (tokens.retry_after or 0) <= 120


@needs_redis
async def test_requests_pass_while_redis_is_down_and_are_limited_when_it_is_back(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rankd")
    now = 0.0

    async with limited(key_requests_per_minute=1, limits_redis=redis.url) as limits:
        limits._breaker._clock = lambda: now
        await _request(limits, "ann")
        assert isinstance(await _refusal(limits, "ann"), TooManyRequests)
        redis.stop()
        for _ in range(5):
            now += 10
            await _request(limits, "ann")
        redis.start()
        now += 10
        await _request(limits, "ann")
        assert isinstance(await _refusal(limits, "ann"), TooManyRequests)

    lost, back = [line for line in caplog.messages if "rate limits" in line]
    assert lost.startswith("counting rate limits in Redis failed: ")
    assert lost.endswith("; keys are not limited until it works again")
    assert back == "counting rate limits in Redis works again"


async def test_the_server_starts_and_answers_without_redis(port: int) -> None:
    url = f"redis://user:secret@127.0.0.1:{port}"
    async with served(key_requests_per_minute=1, limits_redis=url) as http:
        replies = [await http.post("/v1/rerank", json=BODIES["/v1/rerank"]) for _ in range(3)]

    assert {reply.status_code for reply in replies} == {200}


async def test_a_redis_that_hangs_delays_only_one_request(port: int) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", port))
        silent.listen()
        url = f"redis://127.0.0.1:{port}"
        async with limited(key_requests_per_minute=1, limits_redis=url) as limits:
            began = time.monotonic()
            for _ in range(100):
                await _request(limits, "ann")

            # Without the circuit breaker: 100 timeouts of 0.25 s.
            assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    "url", ["memcached://h:1", "secret@host:6379", "redis://h:port/0", "redis://:secret@h/0?x=1"]
)
async def test_an_invalid_redis_url_is_refused_without_quoting_its_password(url: str) -> None:
    with pytest.raises(BadSettings, match="limits_redis") as refusal:
        async with limited(key_requests_per_minute=1, limits_redis=url):
            pass
    assert "secret" not in str(refusal.value)
