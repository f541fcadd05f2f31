"""The shared cache, against the real server: redis-server on a free port of 127.0.0.1."""

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
from rankd.ranking import redis_cache
from rankd.ranking.ranker import Ranker
from rankd.ranking.redis_cache import RedisCache, open_redis
from rankd.server.app import open_ranker
from rankd.types import RankRequest, ScoredDocument
from support.redis_server import REDIS_BINARY, RedisServer

needs_redis = pytest.mark.skipif(
    REDIS_BINARY is None, reason="redis-server is not installed (apt-get install redis-server)"
)

ASK = RankRequest(
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
    monkeypatch.setattr(redis_cache, "PAUSE", 0.2)


async def written(store: RedisCache) -> None:
    if store._writes:
        await asyncio.wait(store._writes)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "rankd"]


@needs_redis
def test_what_one_server_wrote_another_finds_to_the_last_bit(redis: RedisServer) -> None:
    async def work() -> None:
        async with open_redis(redis.url, 60) as one:
            one.put(LOGITS)
        async with open_redis(redis.url, 60) as other:
            found = await other.get([*LOGITS, b"unknown" + b"\0" * 9])

            assert {key: number.hex() for key, number in found.items()} == {
                key: number.hex() for key, number in LOGITS.items()
            }
            for key in LOGITS:
                assert 0 < await other._client.ttl(b"rankd:" + key) <= 60

    asyncio.run(work())


@needs_redis
def test_ten_thousand_scores_are_kept_without_holding_up_everyone(redis: RedisServer) -> None:
    logits = {number.to_bytes(16): float(number) for number in range(10_000)}
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def work() -> None:
        async with open_redis(redis.url, 60) as store:
            await store.ping()
            running = asyncio.create_task(others())
            store.put(logits)
            await written(store)
            assert turns >= 100

            assert await store.get(list(logits)) == logits
            running.cancel()

    asyncio.run(work())


@needs_redis
def test_what_is_no_score_of_this_pair_is_not_taken_for_one(redis: RedisServer) -> None:
    async def work() -> None:
        async with open_redis(redis.url, 60) as store:
            right, *wrong = LOGITS
            store.put({right: 1.5})
            await written(store)
            value = await store._client.get(b"rankd:" + right)
            assert value == struct.pack("<d", 1.5) + right[:8]
            nan = struct.pack("<d8s", float("nan"), wrong[3][:8])
            for key, garbage in zip(wrong, (value, b"", b"1.5", nan), strict=False):
                await store._client.set(b"rankd:" + key, garbage)
            await store._client.rpush(b"rankd:" + wrong[4], "a", "b")

            assert await store.get(list(LOGITS)) == {right: 1.5}

    asyncio.run(work())


@needs_redis
def test_a_lost_server_is_one_line_and_no_error_and_comes_back(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rankd")

    async def work() -> None:
        async with open_redis(redis.url, 60) as store:
            store.put(LOGITS)
            await written(store)
            redis.stop()
            began = time.monotonic()
            for _ in range(1000):
                assert await store.get(list(LOGITS)) == {}
                store.put(LOGITS)
                await written(store)
            assert time.monotonic() - began < 10
            assert len(lines(caplog)) == 1
            redis.start()
            await asyncio.sleep(0.3)
            assert await store.get(list(LOGITS)) == {}  # It kept nothing on disk.
            store.put(LOGITS)
            await written(store)
            assert await store.get(list(LOGITS)) == LOGITS

    asyncio.run(work())

    lost, back = lines(caplog)
    where = f"reading scores from Redis at 127.0.0.1:{redis.port}"
    assert lost.startswith(where)
    assert lost.endswith("; the server goes on without")
    assert back == f"{where}: works again"


@needs_redis
def test_a_server_that_hangs_is_waited_for_once_and_shortly(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        async with open_redis(redis.url, 60) as store:
            store.put(LOGITS)
            await written(store)
            redis.send(signal.SIGSTOP)
            began = time.monotonic()
            assert await store.get(list(LOGITS)) == {}
            waited = time.monotonic() - began
            redis.send(signal.SIGCONT)

            assert waited < 5
            await asyncio.sleep(0.3)
            assert await store.get(list(LOGITS)) == LOGITS

    asyncio.run(work())

    assert len(lines(caplog)) == 1


@needs_redis
def test_a_full_server_is_still_read(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with open_redis(redis.url, 60) as store:
            store.put(LOGITS)
            await written(store)
            await store._client.config_set("maxmemory", "1")
            for _ in range(5):
                store.put(LOGITS)
                await written(store)
                assert await store.get(list(LOGITS)) == LOGITS

    asyncio.run(work())

    [line] = lines(caplog)
    assert line.startswith("writing scores to Redis at 127.0.0.1:")


@needs_redis
def test_who_leaves_in_the_middle_does_not_give_others_a_wrong_answer(redis: RedisServer) -> None:
    async def work() -> None:
        async with open_redis(redis.url, 60) as store:
            store.put(LOGITS)
            await written(store)
            for turn in range(200):
                gone = asyncio.create_task(store.get(list(LOGITS)[:20]))
                for _ in range(turn % 8):
                    await asyncio.sleep(0)
                gone.cancel()
                key = list(LOGITS)[turn % 40]

                assert await store.get([key]) == {key: LOGITS[key]}

    asyncio.run(work())


@asynccontextmanager
async def ranking(url: str, **settings: object) -> AsyncIterator[Ranker]:
    options = {"engine": "fake", "cache_redis": url, "cache_mb": 0, **settings}
    async with open_ranker(Settings.model_validate(options)) as (_, ranker):
        yield ranker


def cached(results: list[ScoredDocument]) -> list[bool]:
    return [result.cached for result in results]


@needs_redis
def test_servers_of_one_model_share_and_others_do_not(redis: RedisServer) -> None:
    async def work() -> None:
        async with ranking(redis.url, cache_mb=1) as one:
            computed = await one.rank(ASK)
        async with ranking(redis.url, cache_mb=1) as same:
            found = await same.rank(ASK)
        async with ranking(redis.url, vllm_args={"quantization": "fp8"}) as other:
            again = await other.rank(ASK)

        assert cached(found) == [True, True]
        assert found == [
            replace(result, cached=True, cached_tokens=result.tokens) for result in computed
        ]
        assert cached(again) == [False, False]

    asyncio.run(work())


@needs_redis
def test_requests_do_not_notice_that_it_stops_and_starts(redis: RedisServer) -> None:
    async def work() -> None:
        async with ranking(redis.url) as ranker:
            expected = await ranker.rank(replace(ASK, cache=False))
            ends = []
            for turn in range(60):
                if turn == 20:
                    redis.stop()
                if turn == 40:
                    redis.start()
                    await asyncio.sleep(0.3)
                results = await ranker.rank(ASK)
                assert [one.logit for one in results] == [one.logit for one in expected]
                ends.append(all(cached(results)))
                await asyncio.sleep(0.01)

            assert any(ends[:20])
            assert not any(ends[20:40])
            assert any(ends[40:])

    asyncio.run(work())


def test_a_server_that_is_not_there_does_not_stop_the_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    async def work() -> None:
        async with ranking(f"redis://someone:secret@127.0.0.1:{port}/0") as ranker:
            assert cached(await ranker.rank(ASK)) == [False, False]

    asyncio.run(work())

    [line] = [line for line in lines(caplog) if "Redis" in line]
    assert "secret" not in line


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:6379", "http://u:secret@h/", "redis://:secret@h:port", "redis://:secret@h/0?x=1"],
)
def test_what_is_no_url_is_a_sentence_without_the_password(url: str) -> None:
    async def work() -> None:
        async with open_redis(url, 60):
            raise AssertionError

    with pytest.raises(BadSettings, match="must be a URL such as redis://") as problem:
        asyncio.run(work())

    assert "secret" not in str(problem.value)


def test_a_setting_of_the_wrong_kind_is_not_repeated() -> None:
    with pytest.raises(BadSettings) as problem:
        load({"cache_redis": ["redis://:secret@h"]}, {})

    assert "secret" not in str(problem.value)
