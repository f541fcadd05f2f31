"""A key's limits: per minute and at a time, in memory and in a real Redis, lost or not."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from rankd.config.settings import Settings
from rankd.errors import BadSettings, RankError, TooLarge, TooManyRequests
from rankd.ranking.rate_limits import RateLimiter, open_rate_limiter
from rankd.server.app import open_app
from rankd.types import RankRequest

KEYS = ("key-of-ann", "key-of-bob")


@asynccontextmanager
async def limited(**chosen: Any) -> AsyncIterator[RateLimiter]:
    async with open_rate_limiter(Settings(**chosen)) as limits:
        yield limits


async def _come(limits: RateLimiter, caller: str, tokens: int = 0) -> None:
    async with limits.call(caller):
        await limits.charge(caller, tokens)


async def _refusal(limits: RateLimiter, caller: str, tokens: int = 0) -> RankError:
    with pytest.raises(RankError) as refusal:
        await _come(limits, caller, tokens)
    return refusal.value


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


def test_without_limits_everyone_passes() -> None:
    async def work() -> None:
        async with limited() as limits:
            for _ in range(100):
                await _come(limits, "ann", 1_000_000)

    run(work)


def test_requests_of_a_minute_are_each_callers_own() -> None:
    async def work() -> None:
        async with limited(key_requests_per_minute=3) as limits:
            for _ in range(3):
                await _come(limits, "ann")
            await _come(limits, "bob")

            refused = await _refusal(limits, "ann")

        assert isinstance(refused, TooManyRequests)
        assert "the limit is 3 requests a minute" in refused.message
        assert 1 <= (refused.retry_after or 0) <= 120

    run(work)


def test_tokens_of_a_minute_are_spent_whole_or_not_at_all() -> None:
    async def work() -> None:
        async with limited(key_tokens_per_minute=1_000) as limits:
            await _come(limits, "ann", 700)
            refused = await _refusal(limits, "ann", 301)
            await _come(limits, "ann", 300)

            assert "the limit is 1,000 tokens a minute" in refused.message
            assert isinstance(await _refusal(limits, "ann", 1), TooManyRequests)
            assert isinstance(await _refusal(limits, "bob", 1_001), TooLarge)

    run(work)


def test_equal_limits_of_requests_and_of_tokens_are_counted_apart() -> None:
    async def work() -> None:
        async with limited(key_requests_per_minute=5, key_tokens_per_minute=5) as limits:
            await _come(limits, "ann", 5)
            for _ in range(4):
                await _come(limits, "ann")

    run(work)


def test_concurrency_is_given_back_when_a_request_ends_or_is_cancelled() -> None:
    async def work() -> None:
        async with limited(key_concurrency=1) as limits:
            inside = asyncio.Event()

            async def stay() -> None:
                async with limits.call("ann"):
                    inside.set()
                    await asyncio.sleep(60)

            staying = asyncio.create_task(stay())
            await inside.wait()
            refused = await _refusal(limits, "ann")
            await _come(limits, "bob")
            staying.cancel()
            await asyncio.wait([staying])
            await _come(limits, "ann")

        assert "the limit is 1 at a time" in refused.message
        assert refused.retry_after == 1
        assert not limits._running

    run(work)


def test_a_refused_request_does_not_count_as_running() -> None:
    async def work() -> None:
        async with limited(key_concurrency=1, key_requests_per_minute=1) as limits:
            await _come(limits, "ann")
            for _ in range(3):
                assert "requests a minute" in (await _refusal(limits, "ann")).message

    run(work)


# Through the app.


@asynccontextmanager
async def served(**chosen: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with open_app(Settings(engine="fake", access_log=False, **chosen)) as app:
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
def test_a_key_is_limited_on_every_path_and_another_is_not(path: str) -> None:
    async def work() -> None:
        async with served(api_keys=KEYS, key_requests_per_minute=2) as http:

            async def ask(key: str) -> httpx.Response:
                return await http.post(path, json=BODIES[path], headers={"x-api-key": key})

            statuses = [(await ask(KEYS[0])).status_code for _ in range(2)]
            refused = await ask(KEYS[0])
            other = await ask(KEYS[1])

        assert statuses == [200, 200]
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert "2 requests a minute" in refused.json()["message"]
        assert KEYS[0] not in refused.text
        assert other.status_code == 200

    run(work)


def test_keys_of_one_name_share_one_limit(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("search = the-old-key\nsearch = the-new-key\nother = another-key\n")

    async def work() -> None:
        async with served(api_keys_file=file, key_requests_per_minute=1) as http:
            statuses = [
                (
                    await http.post(
                        "/v1/rerank", json=BODIES["/v1/rerank"], headers={"x-api-key": key}
                    )
                ).status_code
                for key in ("the-old-key", "the-new-key", "another-key")
            ]

        assert statuses == [200, 429, 200]

    run(work)


def test_what_is_in_the_cache_costs_a_key_no_tokens() -> None:
    async def work() -> None:
        async with served(key_tokens_per_minute=150) as http:
            body: dict[str, object] = {"query": "q", "documents": ["d"]}
            replies = [await http.post("/v1/rerank", json=body) for _ in range(5)]
            price = replies[0].json()["usage"]["total_tokens"]
            alone = body | {"cache": False}
            computed = [await http.post("/v1/rerank", json=alone) for _ in range(5)]

        assert 5 * price > 150
        assert [reply.status_code for reply in replies] == [200] * 5
        assert computed[-1].status_code == 429

    run(work)


def test_callers_without_a_key_share_one_limit() -> None:
    async def work() -> None:
        async with served(key_requests_per_minute=1) as http:
            headers = {"x-api-key": "whatever"}
            one = await http.post("/v1/rerank", json=BODIES["/v1/rerank"])
            two = await http.post("/v1/rerank", json=BODIES["/v1/rerank"], headers=headers)

        assert (one.status_code, two.status_code) == (200, 429)

    run(work)


def test_the_self_check_is_nobodys_request() -> None:
    async def work() -> None:
        # On the built-in model, because only a real one is checked.
        settings = Settings(key_requests_per_minute=1, threads=1)
        async with open_app(settings) as app:
            await app.state.service.ranker.rank(RankRequest("q", ("d",)))

    run(work)


# With a real Redis.

needs_redis = pytest.mark.skipif(not shutil.which("redis-server"), reason="needs redis-server")


@pytest.fixture
def port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def redis(port: int, folder: Path) -> Iterator[str]:
    """A Redis of our own; killed at the end."""
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    log = (folder / "redis.log").open("ab")
    with log, subprocess.Popen(command, cwd=folder, stdout=log) as process:
        try:
            _wait_for(port)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.kill()


def _wait_for(port: int) -> None:
    until = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.05)


@needs_redis
def test_servers_that_share_a_redis_share_a_keys_minutes(tmp_path: Path, port: int) -> None:
    async def work(url: str) -> None:
        chosen = {"key_requests_per_minute": 3, "key_tokens_per_minute": 100, "limits_redis": url}
        async with limited(**chosen) as one, limited(**chosen) as other:
            await _come(one, "ann", 10)
            await _come(other, "ann", 20)
            tokens = await _refusal(other, "ann", 71)
            requests = await _refusal(one, "ann", 1)
            await _come(other, "bob", 100)

        assert "100 tokens a minute" in tokens.message
        assert "3 requests a minute" in requests.message
        assert 1 <= (tokens.retry_after or 0) <= 120

    with redis(port, tmp_path) as url:
        asyncio.run(work(url))


@needs_redis
def test_requests_pass_while_redis_is_lost_and_are_limited_when_it_is_back(
    tmp_path: Path, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0

    async def work() -> None:
        nonlocal now
        chosen = {"key_requests_per_minute": 1, "limits_redis": f"redis://127.0.0.1:{port}"}
        async with limited(**chosen) as limits:
            limits._breaker._clock = lambda: now
            with ExitStack() as stack:
                stack.enter_context(redis(port, tmp_path))
                await _come(limits, "ann")
                assert isinstance(await _refusal(limits, "ann"), TooManyRequests)
            for _ in range(5):
                now += 10
                await _come(limits, "ann")
            with redis(port, tmp_path):
                now += 10
                await _come(limits, "ann")
                assert isinstance(await _refusal(limits, "ann"), TooManyRequests)

    asyncio.run(work())

    assert sum("counting rate limits in Redis failed" in line for line in caplog.messages) == 1


def test_a_redis_that_was_never_there_stops_nobody(port: int) -> None:
    async def work() -> None:
        url = f"redis://user:secret@127.0.0.1:{port}"
        async with served(key_requests_per_minute=1, limits_redis=url) as http:
            replies = [await http.post("/v1/rerank", json=BODIES["/v1/rerank"]) for _ in range(3)]

        assert {reply.status_code for reply in replies} == {200}

    run(work)


def test_a_redis_that_hangs_costs_one_request_a_moment(port: int) -> None:
    async def work(url: str) -> None:
        async with limited(key_requests_per_minute=1, limits_redis=url) as limits:
            began = time.monotonic()
            for _ in range(20):
                await _come(limits, "ann")

            assert time.monotonic() - began < 3

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", port))
        silent.listen()
        asyncio.run(work(f"redis://127.0.0.1:{port}"))


@pytest.mark.parametrize(
    "url", ["memcached://h:1", "secret@host:6379", "redis://h:port/0", "redis://:secret@h/0?x=1"]
)
def test_what_is_no_redis_is_refused_without_telling_its_password(url: str) -> None:
    async def work() -> None:
        with pytest.raises(BadSettings, match="limits_redis") as refusal:
            async with limited(key_requests_per_minute=1, limits_redis=url):
                pass
        assert "secret" not in str(refusal.value)

    run(work)
