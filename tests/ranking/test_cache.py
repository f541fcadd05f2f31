"""The score cache: memory bounds, keys, hits bit for bit."""

from __future__ import annotations

import asyncio
import math
import random
import tracemalloc
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from rankd.config.settings import Settings
from rankd.engines.base import EngineInfo
from rankd.ranking.cache import ENTRY_BYTES, MemoryStore, ScoreCache, identity, pair_keys
from rankd.ranking.ranker import Ranker
from rankd.server.app import open_ranker
from rankd.types import AnswerTokenIds, Prompt, RankRequest, ScoredDocument
from support.calling import calling

pytestmark = pytest.mark.anyio

TEXTS = ("Lions hunt at night.", "The capital of China is Beijing.", "Blue whales sing.")
REQUEST = RankRequest("What is the capital of China?", TEXTS)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def get(store: MemoryStore, *keys: bytes) -> Mapping[bytes, float]:
    return asyncio.run(store.get(keys))


# Memory


def test_stored_logits_are_found_bit_for_bit() -> None:
    logits = {b"a": 0.1 + 0.2, b"b": -math.pi, b"c": 5e-324, b"d": -0.0}
    store = MemoryStore(1 << 20, ttl=60)

    store.put(logits)

    found = get(store, b"a", b"b", b"c", b"d", b"e")
    assert {key: number.hex() for key, number in found.items()} == {
        key: number.hex() for key, number in logits.items()
    }


keys = st.integers(0, 12).map(lambda number: bytes([number]))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), keys, st.floats(allow_nan=False, allow_infinity=False)),
        st.tuples(st.just("get"), keys, st.none()),
        st.tuples(st.just("wait"), st.integers(1, 40), st.none()),
    ),
    max_size=60,
)


@given(steps, st.integers(0, 6))
def test_the_memory_store_behaves_like_an_lru_list_with_expiry(
    steps: list[tuple[str, object, float | None]], size: int
) -> None:
    clock = Clock()
    store = MemoryStore(size * ENTRY_BYTES + ENTRY_BYTES // 2, ttl=60, clock=clock)
    model: dict[object, tuple[float, float]] = {}  # Least recently used first.

    for step, value, logit in steps:
        if step == "wait":
            assert isinstance(value, int)
            clock.now += value
        elif step == "put":
            assert isinstance(value, bytes)
            assert logit is not None
            store.put({value: logit})
            model.pop(value, None)
            model[value] = (logit, clock.now + 60)
            while len(model) > size:
                del model[next(iter(model))]
        else:
            assert isinstance(value, bytes)
            found = get(store, value).get(value)
            entry = model.pop(value, None)
            fresh = entry is not None and clock.now < entry[1]
            assert found == (entry[0] if entry and fresh else None)
            if entry and fresh:
                model[value] = entry
        assert store.size <= size * ENTRY_BYTES


def test_reading_a_score_does_not_extend_its_ttl() -> None:
    clock = Clock()
    store = MemoryStore(1 << 20, ttl=60, clock=clock)
    store.put({b"a": 1.0})

    clock.now = 59.0
    before = get(store, b"a")
    clock.now = 60.0

    assert before == {b"a": 1.0}
    assert get(store, b"a") == {}
    assert store.size == 0


@pytest.mark.parametrize("entries", [1_400, 3_000, 23_000])
def test_memory_stays_within_the_limit(entries: int) -> None:
    rng = random.Random(1)
    limit = entries * ENTRY_BYTES
    store = MemoryStore(limit, ttl=60)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]

    for _ in range(3 * entries):
        store.put({rng.randbytes(16): rng.random()})
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()

    assert store.size == limit
    assert limit / 4 < peak <= limit


# Keys

INFO = EngineInfo("native", "m", "r", "cpu", "float32", 8192)
ANSWERS = AnswerTokenIds(1, 2)
PROMPT = Prompt((1, 2, 3), (4, 5))


@pytest.mark.parametrize(
    "other",
    [
        identity("other", INFO, ANSWERS, Settings()),
        identity("m", replace(INFO, name="vllm"), ANSWERS, Settings()),
        identity("m", replace(INFO, version="0.32"), ANSWERS, Settings()),
        identity("m", replace(INFO, device="cuda"), ANSWERS, Settings()),
        identity("m", replace(INFO, dtype="bfloat16"), ANSWERS, Settings()),
        identity("m", INFO, AnswerTokenIds(2, 1), Settings()),
        identity("m", INFO, AnswerTokenIds(1, None), Settings()),
        identity("m", INFO, AnswerTokenIds(1, 2, scale=0.2), Settings()),
        identity("m", INFO, ANSWERS, Settings(vllm_args={"quantization": "fp8"})),
        identity("m", INFO, ANSWERS, Settings(vllm_args={"kv_cache_dtype": "fp8"})),
    ],
)
def test_everything_that_decides_a_logit_changes_the_key(other: bytes) -> None:
    ours = identity("m", INFO, ANSWERS, Settings())

    assert ours == identity("m", INFO, ANSWERS, Settings(port=1, cache_mb=1))
    assert pair_keys([PROMPT], ours) != pair_keys([PROMPT], other)


ids = st.lists(st.integers(0, 3), max_size=4).map(tuple)


@given(st.lists(st.tuples(ids, ids), max_size=20))
def test_keys_are_equal_exactly_if_prompts_are(pairs: list[tuple[tuple[int, ...], ...]]) -> None:
    prompts = [Prompt(prefix, suffix) for prefix, suffix in pairs]

    keys = pair_keys(prompts, b"x")

    assert len(set(keys)) == len(set(prompts))
    assert keys == [pair_keys([prompt], b"x")[0] for prompt in prompts]
    assert all(len(key) == 16 for key in keys)


async def test_keys_computed_in_a_thread_are_the_same() -> None:
    prompts = [Prompt((1, 2), (number,) * 8_000) for number in range(20)]

    assert await ScoreCache().keys(prompts) == pair_keys(prompts, b"")


class SlowerStore:
    """A store behind a faster one; records the keys it is asked for."""

    def __init__(self) -> None:
        self.logits: dict[bytes, float] = {}
        self.requested: list[list[bytes]] = []

    async def get(self, keys: Sequence[bytes]) -> Mapping[bytes, float]:
        self.requested.append(list(keys))
        return {key: self.logits[key] for key in keys if key in self.logits}

    def put(self, logits: Mapping[bytes, float]) -> None:
        self.logits |= logits


async def test_a_slower_store_is_asked_only_for_misses_and_its_hits_are_copied() -> None:
    fast, slow = MemoryStore(1 << 20, ttl=60), SlowerStore()
    fast.put({b"a": 1.0})
    slow.put({b"b": 2.0})
    cache = ScoreCache([fast, slow])

    found = [await cache.look_up([b"a", b"b", b"c"]) for _ in range(2)]

    assert found == [{b"a": 1.0, b"b": 2.0}] * 2
    assert slow.requested == [[b"b", b"c"], [b"c"]]


# Through the ranker, with the native engine and the built-in model


class CountingEngine:
    """Wraps a ranker's engine; records the number of prompts of each call."""

    def __init__(self, ranker: Ranker) -> None:
        self.calls: list[int] = []
        self._called = asyncio.Event()
        self._score = ranker.scheduler.score
        ranker.scheduler.score = self.score  # type: ignore[method-assign]

    async def score(self, prompts: Sequence[Prompt], **options: Any) -> list[float]:
        self.calls.append(len(prompts))
        self._called.set()
        return await self._score(prompts, **options)

    async def called(self, times: int) -> None:
        """Wait until the engine was called this many times."""
        while len(self.calls) < times:
            self._called.clear()
            await self._called.wait()


@asynccontextmanager
async def counted(**settings: object) -> AsyncIterator[tuple[Ranker, CountingEngine]]:
    async with open_ranker(Settings.model_validate(settings)) as (_, ranker):
        yield ranker, CountingEngine(ranker)


def bits(results: list[ScoredDocument]) -> list[str]:
    return [result.logit.hex() for result in results]


async def test_a_hit_is_the_score_of_the_model_bit_for_bit() -> None:
    async with counted(engine="native", device="cpu") as (ranker, engine):
        computed = await ranker.rank(replace(REQUEST, cache=False))
        first = await ranker.rank(REQUEST)
        again = await ranker.rank(REQUEST)

        assert bits(computed) == bits(first) == bits(again)
        assert len(set(bits(again))) == 3
        assert engine.calls == [3, 3]
        assert [result.cached for result in first] == [False] * 3
        assert [result.cached for result in again] == [True] * 3
        assert [replace(result, cached=False, cached_tokens=0) for result in again] == first


@pytest.mark.slow
async def test_with_and_without_a_cache_scores_are_the_same() -> None:
    async def logits(cache_mb: int) -> list[list[str]]:
        # Only deterministic engines give the same bits for certain.
        settings = {"engine": "native", "device": "cpu", "deterministic": True}
        async with counted(**settings, cache_mb=cache_mb) as (ranker, _):
            return [bits(await ranker.rank(REQUEST)) for _ in range(2)]

    assert await logits(0) == await logits(1)


async def test_only_misses_go_to_the_engine() -> None:
    async with counted(engine="fake") as (ranker, engine):
        await ranker.rank(replace(REQUEST, documents=TEXTS[:2]))
        results = await ranker.rank(replace(REQUEST, documents=(*TEXTS, TEXTS[2])))

        assert engine.calls == [2, 1]
        assert [result.cached for result in results] == [True, True, False, False]


@pytest.mark.parametrize(
    "other",
    [
        replace(REQUEST, query="What is the capital of Chile?"),
        replace(REQUEST, instruction="Find lions."),
        replace(REQUEST, max_document_tokens=2),
    ],
)
async def test_another_query_instruction_or_truncation_is_a_miss(other: RankRequest) -> None:
    async with counted(engine="fake") as (ranker, engine):
        await ranker.rank(REQUEST)
        await ranker.rank(other)

        assert engine.calls == [3, 3]


async def test_a_request_without_cache_neither_reads_nor_writes_it() -> None:
    async with counted(engine="fake") as (ranker, engine):
        uncached = replace(REQUEST, cache=False)
        for request in (uncached, REQUEST, uncached):
            assert not any(result.cached for result in await ranker.rank(request))

        assert engine.calls == [3, 3, 3]


async def test_one_query_without_cache_disables_it_for_its_whole_batch() -> None:
    async with counted(engine="fake") as (ranker, engine):
        await ranker.rank(REQUEST)
        groups = await ranker.rank_all([REQUEST, replace(REQUEST, query="another", cache=False)])

        assert not any(result.cached for group in groups for result in group)
        assert engine.calls == [3, 6]


async def test_a_cache_of_size_zero_keeps_nothing() -> None:
    async with counted(engine="fake", cache_mb=0) as (ranker, engine):
        await ranker.rank(REQUEST)
        await ranker.rank(REQUEST)

        assert engine.calls == [3, 3]


async def test_a_document_in_chunks_is_cached_if_all_its_chunks_are() -> None:
    async with counted(engine="fake") as (ranker, _):
        whole = RankRequest(
            "q", ("one two three four five six seven eight",), max_document_tokens=4
        )
        await ranker.rank(whole)
        [first] = await ranker.rank(replace(whole, max_chunks=2))
        [second] = await ranker.rank(replace(whole, max_chunks=2))

        assert not first.cached
        assert 0 < first.cached_tokens < first.tokens
        assert second == replace(first, cached=True, cached_tokens=first.tokens)


async def test_equal_concurrent_requests_are_computed_once() -> None:
    async with counted(engine="native", device="cpu", cache_mb=0) as (ranker, engine):
        answers = await asyncio.gather(*(ranker.rank(REQUEST) for _ in range(20)))

        assert engine.calls == [3]
        assert len({tuple(bits(answer)) for answer in answers}) == 1


async def test_requests_without_cache_share_no_computation() -> None:
    async with counted(engine="native", device="cpu") as (ranker, engine):
        uncached = replace(REQUEST, cache=False)
        await asyncio.gather(*map(ranker.rank, (uncached, REQUEST, uncached, REQUEST)))

        assert engine.calls == [3, 3, 3]  # The second and the last request share a computation.


async def test_a_caller_with_one_request_does_not_wait_for_a_caller_with_many() -> None:
    async with counted(engine="native", device="cpu") as (ranker, engine):
        busy = [replace(REQUEST, documents=(text,), caller="busy") for text in REQUEST.documents]
        await asyncio.gather(*map(ranker.rank, [*busy, replace(busy[-1], caller="quiet")]))

        assert engine.calls == [1, 1, 1, 1]


async def test_equal_requests_are_answered_when_the_first_is_cancelled() -> None:
    async with counted(engine="native", device="cpu") as (ranker, engine):
        expected = bits(await ranker.rank(replace(REQUEST, cache=False)))
        first = asyncio.create_task(ranker.rank(REQUEST))
        others = [asyncio.create_task(ranker.rank(REQUEST)) for _ in range(5)]
        await engine.called(2)
        first.cancel()

        assert [bits(answer) for answer in await asyncio.gather(*others)] == [expected] * 5
        assert engine.calls == [3, 3, 3]  # Computed, cancelled, computed once for five requests.


# Over HTTP


@pytest.fixture
def cached_client() -> Iterator[TestClient]:
    with calling(Settings(engine="fake")) as client:
        yield client


BODY = {"query": REQUEST.query, "documents": list(TEXTS)}


def metric(client: TestClient, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    [value] = [line.split()[1] for line in lines if line.startswith(name + " ")]
    return float(value)


def test_hits_are_counted_in_the_response_and_in_the_metrics(cached_client: TestClient) -> None:
    hits = metric(cached_client, "rankd_cache_hits_total")
    misses = metric(cached_client, "rankd_cache_misses_total")
    two = cached_client.post("/v1/rerank", json=BODY | {"documents": list(TEXTS[:2])})
    three = cached_client.post("/v1/rerank", json=BODY | {"top_n": 1})

    assert two.json()["usage"]["cached_tokens"] == 0
    assert two.json()["meta"]["cached_documents"] == 0
    assert two.headers["x-rankd-cached"] == "0"
    usage = three.json()["usage"]
    assert usage["cached_tokens"] == two.json()["usage"]["total_tokens"]
    assert usage["cached_tokens"] < usage["total_tokens"]
    assert three.json()["meta"]["cached_documents"] == 2
    assert three.headers["x-rankd-cached"] == "2"
    assert metric(cached_client, "rankd_cache_hits_total") == hits + 2
    assert metric(cached_client, "rankd_cache_misses_total") == misses + 3
    assert metric(cached_client, "rankd_cache_bytes") == 3 * ENTRY_BYTES


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/rerank", BODY),
        ("/voyage/v1/rerank", BODY),
        ("/cohere/v2/rerank", BODY),
        ("/rerank", {"query": "q", "texts": list(TEXTS)}),
        ("/v1/score", {"text_1": "q", "text_2": list(TEXTS)}),
        ("/simple/batch_rerank", {"queries": ["q"], "documents": [list(TEXTS)]}),
    ],
)
def test_every_dialect_can_disable_the_cache(
    cached_client: TestClient, path: str, body: dict[str, object]
) -> None:
    replies = [
        cached_client.post(path, json=body | fields) for fields in ({}, {}, {"cache": False})
    ]

    assert [reply.status_code for reply in replies] == [200] * 3
    assert [reply.headers["x-rankd-cached"] for reply in replies] == ["0", "3", "0"]
    assert all("x-rankd-warnings" not in reply.headers for reply in replies)
