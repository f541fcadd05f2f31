"""The cache in Redis, against a real redis-server on a free port of 127.0.0.1."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from rankd.config.settings import Settings
from rankd.config.sources import load
from rankd.errors import BadSettings
from rankd.ranking import circuit_breaker
from rankd.ranking.ranker import Ranker
from rankd.ranking.redis_cache import RedisCache, open_redis
from rankd.server.app import open_ranker
from rankd.types import RankRequest, ScoredDocument
from support.redis_server import REDIS_BINARY, RedisServer

pytestmark = pytest.mark.anyio

needs_redis = pytest.mark.skipif(
    REDIS_BINARY is None, reason="redis-server is not installed (apt-get install redis-server)"
)

REQUEST = RankRequest(
    "What is the capital of China?", ("Lions hunt.", "Beijing is the capital of China.")
)
LOGITS = {bytes([number]) * 16: number * 0.1 - 3 for number in range(40)}


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def _short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_breaker, "PAUSE_SECONDS", 0.2)


async def finish_writes(store: RedisCache) -> None:
    if store._write_tasks:
        await asyncio.wait(store._write_tasks)


def log_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "rankd"]


@needs_redis
async def test_a_score_written_by_one_server_is_read_by_another_bit_for_bit(
    redis: RedisServer,
) -> None:
    async with open_redis(redis.url, 60) as one:
        one.put(LOGITS)
    async with open_redis(redis.url, 60) as other:
        found = await other.get([*LOGITS, b"unknown" + b"\0" * 9])

        assert {key: number.hex() for key, number in found.items()} == {
            key: number.hex() for key, number in LOGITS.items()
        }
        for key in LOGITS:
            assert 0 < await other._client.ttl(b"rankd:" + key) <= 60


@needs_redis
async def test_storing_ten_thousand_scores_does_not_block_the_event_loop(
    redis: RedisServer,
) -> None:
    logits = {number.to_bytes(16): float(number) for number in range(10_000)}
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with open_redis(redis.url, 60) as store:
        await store.ping()
        running = asyncio.create_task(count_turns())
        store.put(logits)
        await finish_writes(store)
        assert turns >= 100

        assert await store.get(list(logits)) == logits
        running.cancel()


@needs_redis
async def test_malformed_values_and_values_of_other_pairs_are_ignored(redis: RedisServer) -> None:
    async with open_redis(redis.url, 60) as store:
        right, *wrong = LOGITS
        store.put({right: 1.5})
        await finish_writes(store)
        value = await store._client.get(b"rankd:" + right)
        assert value == struct.pack("<d", 1.5) + right[:8]
        nan = struct.pack("<d8s", float("nan"), wrong[3][:8])
        for key, garbage in zip(wrong, (value, b"", b"1.5", nan), strict=False):
            await store._client.set(b"rankd:" + key, garbage)
        await store._client.rpush(b"rankd:" + wrong[4], "a", "b")

        assert await store.get(list(LOGITS)) == {right: 1.5}


@needs_redis
async def test_a_lost_redis_is_one_log_line_and_no_error_and_is_used_again(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rankd")

    async with open_redis(redis.url, 60) as store:
        store.put(LOGITS)
        await finish_writes(store)
        redis.stop()
        began = time.monotonic()
        for _ in range(1000):
            assert await store.get(list(LOGITS)) == {}
            store.put(LOGITS)
            await finish_writes(store)
        assert time.monotonic() - began < 60  # Without the circuit breaker: 1,000 attempts.
        assert len(log_lines(caplog)) == 1
        redis.start()
        await asyncio.sleep(0.3)
        assert await store.get(list(LOGITS)) == {}  # It kept nothing on disk.
        store.put(LOGITS)
        await finish_writes(store)
        assert await store.get(list(LOGITS)) == LOGITS

    lost, back = log_lines(caplog)
    operation = f"reading scores from Redis at 127.0.0.1:{redis.port}"
    assert lost.startswith(f"{operation} failed: ")
    assert lost.endswith("; the server continues without it")
    assert back == f"{operation} works again"


@needs_redis
async def test_a_redis_that_hangs_delays_one_read_briefly(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_redis(redis.url, 60) as store:
        store.put(LOGITS)
        await finish_writes(store)
        redis.send(signal.SIGSTOP)
        began = time.monotonic()
        assert await store.get(list(LOGITS)) == {}
        waited = time.monotonic() - began
        redis.send(signal.SIGCONT)

        assert waited < 20
        await asyncio.sleep(0.3)
        assert await store.get(list(LOGITS)) == LOGITS

    assert len(log_lines(caplog)) == 1


@needs_redis
async def test_a_redis_without_free_memory_is_still_read(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_redis(redis.url, 60) as store:
        store.put(LOGITS)
        await finish_writes(store)
        await store._client.config_set("maxmemory", "1")
        for _ in range(5):
            store.put(LOGITS)
            await finish_writes(store)
            assert await store.get(list(LOGITS)) == LOGITS

    [line] = log_lines(caplog)
    assert line.startswith("writing scores to Redis at 127.0.0.1:")


@needs_redis
async def test_a_cancelled_read_does_not_corrupt_later_reads(redis: RedisServer) -> None:
    async with open_redis(redis.url, 60) as store:
        store.put(LOGITS)
        await finish_writes(store)
        for turn in range(200):
            read = asyncio.create_task(store.get(list(LOGITS)[:20]))
            for _ in range(turn % 8):
                await asyncio.sleep(0)
            read.cancel()
            key = list(LOGITS)[turn % 40]

            assert await store.get([key]) == {key: LOGITS[key]}


@asynccontextmanager
async def ranking(url: str, **settings: object) -> AsyncIterator[Ranker]:
    options = {"engine": "fake", "cache_redis": url, "cache_mb": 0, **settings}
    async with open_ranker(Settings.model_validate(options)) as (_, ranker):
        yield ranker


def cached(results: list[ScoredDocument]) -> list[bool]:
    return [result.cached for result in results]


@needs_redis
async def test_servers_with_equal_models_share_scores_and_others_do_not(redis: RedisServer) -> None:
    async with ranking(redis.url, cache_mb=1) as one:
        computed = await one.rank(REQUEST)
    async with ranking(redis.url, cache_mb=1) as same:
        found = await same.rank(REQUEST)
    async with ranking(redis.url, vllm_args={"quantization": "fp8"}) as other:
        again = await other.rank(REQUEST)

    assert cached(found) == [True, True]
    assert found == [
        replace(result, cached=True, cached_tokens=result.tokens) for result in computed
    ]
    assert cached(again) == [False, False]


@needs_redis
async def test_servers_share_no_scores_of_another_number_format(redis: RedisServer) -> None:
    native = {"engine": "native", "device": "cpu"}
    found = {}
    for dtype in ("auto", "bfloat16", "float32"):
        async with ranking(redis.url, **native, dtype=dtype) as ranker:
            found[dtype] = cached(await ranker.rank(REQUEST))

    # The built-in model is float32 by default.
    assert found == {"auto": [False] * 2, "bfloat16": [False] * 2, "float32": [True] * 2}


@needs_redis
async def test_requests_are_answered_while_redis_stops_and_starts(redis: RedisServer) -> None:
    async with ranking(redis.url) as ranker:
        expected = await ranker.rank(replace(REQUEST, cache=False))
        from_cache = []
        for turn in range(60):
            if turn == 20:
                redis.stop()
            if turn == 40:
                redis.start()
                await asyncio.sleep(0.3)
            results = await ranker.rank(REQUEST)
            assert [result.logit for result in results] == [result.logit for result in expected]
            from_cache.append(all(cached(results)))
            await asyncio.sleep(0.01)

        assert any(from_cache[:20])
        assert not any(from_cache[20:40])
        assert any(from_cache[40:])


async def test_the_server_starts_without_redis(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    async with ranking(f"redis://someone:secret@127.0.0.1:{port}/0") as ranker:
        assert cached(await ranker.rank(REQUEST)) == [False, False]

    [line] = [line for line in log_lines(caplog) if "Redis" in line]
    assert "secret" not in line


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:6379", "http://u:secret@h/", "redis://:secret@h:port", "redis://:secret@h/0?x=1"],
)
async def test_an_invalid_url_is_an_error_without_the_password(url: str) -> None:
    with pytest.raises(BadSettings, match="must be a URL such as redis://") as problem:
        async with open_redis(url, 60):
            pass

    assert "secret" not in str(problem.value)


def test_a_setting_of_the_wrong_type_is_not_quoted() -> None:
    with pytest.raises(BadSettings) as problem:
        load({"cache_redis": ["redis://:secret@h"]}, {})

    assert "secret" not in str(problem.value)
