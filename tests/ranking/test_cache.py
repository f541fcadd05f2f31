"""Scores that were computed before: kept within bounds, found again to the last bit."""

from __future__ import annotations

import asyncio
import math
import random
import tracemalloc
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from rankd.config.settings import Settings
from rankd.engines.base import EngineInfo
from rankd.models.checkpoint import BUILTIN, locate
from rankd.ranking.cache import ENTRY_BYTES, MemoryStore, ScoreCache, identity, pair_keys
from rankd.ranking.ranker import Ranker
from rankd.server.app import open_app, open_ranker
from rankd.types import AnswerTokenIds, Prompt, RankRequest, ScoredDocument

TEXTS = ("Lions hunt at night.", "The capital of China is Beijing.", "Blue whales sing.")
ASK = RankRequest("What is the capital of China?", TEXTS)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def get(store: MemoryStore, *keys: bytes) -> Mapping[bytes, float]:
    return asyncio.run(store.get(keys))


# Memory


def test_what_was_put_is_found_to_the_last_bit() -> None:
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
def test_it_is_what_a_list_of_the_last_used_would_be(
    steps: list[tuple[str, object, float | None]], most: int
) -> None:
    clock = Clock()
    store = MemoryStore(most * ENTRY_BYTES + ENTRY_BYTES // 2, ttl=60, clock=clock)
    model: dict[object, tuple[float, float]] = {}  # Least recently used first.

    for step, what, logit in steps:
        if step == "wait":
            assert isinstance(what, int)
            clock.now += what
        elif step == "put":
            assert isinstance(what, bytes)
            assert logit is not None
            store.put({what: logit})
            model.pop(what, None)
            model[what] = (logit, clock.now + 60)
            while len(model) > most:
                del model[next(iter(model))]
        else:
            assert isinstance(what, bytes)
            found = get(store, what).get(what)
            known = model.pop(what, None)
            fresh = known is not None and clock.now < known[1]
            assert found == (known[0] if known and fresh else None)
            if known and fresh:
                model[what] = known
        assert store.size <= most * ENTRY_BYTES


def test_use_does_not_make_a_score_live_longer() -> None:
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
def test_it_really_takes_no_more_memory_than_it_may(entries: int) -> None:
    dice = random.Random(1)
    limit = entries * ENTRY_BYTES
    store = MemoryStore(limit, ttl=60)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]

    for _ in range(3 * entries):
        store.put({dice.randbytes(16): dice.random()})
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
        identity("m", INFO, ANSWERS, Settings(vllm_args={"quantization": "fp8"})),
        identity("m", INFO, ANSWERS, Settings(vllm_args={"kv_cache_dtype": "fp8"})),
    ],
)
def test_whatever_decides_a_logit_changes_the_key(other: bytes) -> None:
    ours = identity("m", INFO, ANSWERS, Settings())

    assert ours == identity("m", INFO, ANSWERS, Settings(port=1, cache_mb=1))
    assert pair_keys([PROMPT], ours) != pair_keys([PROMPT], other)


ids = st.lists(st.integers(0, 3), max_size=4).map(tuple)


@given(st.lists(st.tuples(ids, ids), max_size=20))
def test_keys_are_equal_where_prompts_are(pairs: list[tuple[tuple[int, ...], ...]]) -> None:
    prompts = [Prompt(head, tail) for head, tail in pairs]

    keys = pair_keys(prompts, b"x")

    assert len(set(keys)) == len(set(prompts))
    assert keys == [pair_keys([prompt], b"x")[0] for prompt in prompts]
    assert all(len(key) == 16 for key in keys)


def test_keys_of_a_long_request_are_the_same() -> None:
    prompts = [Prompt((1, 2), (number,) * 8_000) for number in range(20)]

    assert asyncio.run(ScoreCache().keys(prompts)) == pair_keys(prompts, b"")


class Far:
    """A store behind another."""

    def __init__(self) -> None:
        self.logits: dict[bytes, float] = {}
        self.asked: list[list[bytes]] = []

    async def get(self, keys: Sequence[bytes]) -> Mapping[bytes, float]:
        self.asked.append(list(keys))
        return {key: self.logits[key] for key in keys if key in self.logits}

    def put(self, logits: Mapping[bytes, float]) -> None:
        self.logits |= logits


def test_only_what_is_not_near_is_asked_of_the_far_store_and_then_is_near() -> None:
    near, far = MemoryStore(1 << 20, ttl=60), Far()
    near.put({b"a": 1.0})
    far.put({b"b": 2.0})
    cache = ScoreCache([near, far])

    found = [asyncio.run(cache.look_up([b"a", b"b", b"c"])) for _ in range(2)]

    assert found == [{b"a": 1.0, b"b": 2.0}] * 2
    assert far.asked == [[b"b", b"c"], [b"c"]]


# Through the ranker, with the engine and the model that ship


class Counting:
    """An engine that notes how many prompts it was given."""

    def __init__(self, ranker: Ranker) -> None:
        self.calls: list[int] = []
        self._news = asyncio.Event()
        self._score = ranker.scheduler.score
        ranker.scheduler.score = self.score  # type: ignore[method-assign]

    async def score(self, prompts: Sequence[Prompt], **options: Any) -> list[float]:
        self.calls.append(len(prompts))
        self._news.set()
        return await self._score(prompts, **options)

    async def called(self, times: int) -> None:
        """Wait until it was."""
        while len(self.calls) < times:
            self._news.clear()
            await self._news.wait()


@asynccontextmanager
async def counted(**settings: object) -> AsyncIterator[tuple[Ranker, Counting]]:
    async with open_ranker(Settings.model_validate(settings)) as (_, ranker):
        yield ranker, Counting(ranker)


def bits(results: list[ScoredDocument]) -> list[str]:
    return [result.logit.hex() for result in results]


def test_a_hit_is_the_score_that_the_model_gave_to_the_last_bit() -> None:
    async def work() -> None:
        async with counted(engine="native", device="cpu") as (ranker, engine):
            computed = await ranker.rank(replace(ASK, cache=False))
            first = await ranker.rank(ASK)
            again = await ranker.rank(ASK)

            assert bits(computed) == bits(first) == bits(again)
            assert len(set(bits(again))) == 3
            assert engine.calls == [3, 3]
            assert [result.cached for result in first] == [False] * 3
            assert [result.cached for result in again] == [True] * 3
            assert [replace(result, cached=False, cached_tokens=0) for result in again] == first

    asyncio.run(work())


def test_with_and_without_a_cache_scores_are_the_same() -> None:
    async def logits(cache_mb: int) -> list[list[str]]:
        # Two engines: only so are their last bits the same for certain.
        settings = {"engine": "native", "device": "cpu", "deterministic": True}
        async with counted(**settings, cache_mb=cache_mb) as (ranker, _):
            return [bits(await ranker.rank(ASK)) for _ in range(2)]

    async def work() -> None:
        assert await logits(0) == await logits(1)

    asyncio.run(work())


def test_only_what_is_missing_goes_to_the_engine() -> None:
    async def work() -> None:
        async with counted(engine="fake") as (ranker, engine):
            await ranker.rank(replace(ASK, documents=TEXTS[:2]))
            results = await ranker.rank(replace(ASK, documents=(*TEXTS, TEXTS[2])))

            assert engine.calls == [2, 1]
            assert [result.cached for result in results] == [True, True, False, False]

    asyncio.run(work())


@pytest.mark.parametrize(
    "other",
    [
        replace(ASK, query="What is the capital of Chile?"),
        replace(ASK, instruction="Find lions."),
        replace(ASK, max_document_tokens=2),
    ],
)
def test_another_question_instruction_or_cut_is_another_pair(other: RankRequest) -> None:
    async def work() -> None:
        async with counted(engine="fake") as (ranker, engine):
            await ranker.rank(ASK)
            await ranker.rank(other)

            assert engine.calls == [3, 3]

    asyncio.run(work())


def test_who_wants_no_cache_takes_nothing_and_leaves_nothing() -> None:
    async def work() -> None:
        async with counted(engine="fake") as (ranker, engine):
            alone = replace(ASK, cache=False)
            for ask in (alone, ASK, alone):
                assert not any(result.cached for result in await ranker.rank(ask))

            assert engine.calls == [3, 3, 3]

    asyncio.run(work())


def test_when_one_of_a_requests_asks_wants_no_cache_none_takes_it() -> None:
    async def work() -> None:
        async with counted(engine="fake") as (ranker, engine):
            await ranker.rank(ASK)
            groups = await ranker.rank_all([ASK, replace(ASK, query="another", cache=False)])

            assert not any(result.cached for group in groups for result in group)
            assert engine.calls == [3, 6]

    asyncio.run(work())


def test_a_cache_of_no_size_keeps_nothing() -> None:
    async def work() -> None:
        async with counted(engine="fake", cache_mb=0) as (ranker, engine):
            await ranker.rank(ASK)
            await ranker.rank(ASK)

            assert engine.calls == [3, 3]

    asyncio.run(work())


def test_a_document_in_pieces_is_cached_when_all_of_them_are() -> None:
    async def work() -> None:
        async with counted(engine="fake") as (ranker, _):
            whole = RankRequest(
                "q", ("one two three four five six seven eight",), max_document_tokens=4
            )
            await ranker.rank(whole)
            [some] = await ranker.rank(replace(whole, max_chunks=2))
            [every] = await ranker.rank(replace(whole, max_chunks=2))

            assert not some.cached
            assert 0 < some.cached_tokens < some.tokens
            assert every == replace(some, cached=True, cached_tokens=some.tokens)

    asyncio.run(work())


def test_equal_requests_at_once_are_computed_once() -> None:
    async def work() -> None:
        async with counted(engine="native", device="cpu", cache_mb=0) as (ranker, engine):
            answers = await asyncio.gather(*(ranker.rank(ASK) for _ in range(20)))

            assert engine.calls == [3]
            assert len({tuple(bits(answer)) for answer in answers}) == 1

    asyncio.run(work())


def test_who_wants_no_cache_waits_for_nobody_and_nobody_for_them() -> None:
    async def work() -> None:
        async with counted(engine="native", device="cpu") as (ranker, engine):
            alone = replace(ASK, cache=False)
            await asyncio.gather(*map(ranker.rank, (alone, ASK, alone, ASK)))

            assert engine.calls == [3, 3, 3]  # Only the second and the last are one.

    asyncio.run(work())


def test_a_caller_of_one_request_does_not_wait_for_one_of_many() -> None:
    async def work() -> None:
        async with counted(engine="native", device="cpu") as (ranker, engine):
            busy = [replace(ASK, documents=(text,), caller="busy") for text in ASK.documents]
            await asyncio.gather(*map(ranker.rank, [*busy, replace(busy[-1], caller="quiet")]))

            assert engine.calls == [1, 1, 1, 1]

    asyncio.run(work())


def test_when_the_first_of_equal_requests_leaves_the_others_are_answered() -> None:
    async def work() -> None:
        async with counted(engine="native", device="cpu") as (ranker, engine):
            expected = bits(await ranker.rank(replace(ASK, cache=False)))
            first = asyncio.create_task(ranker.rank(ASK))
            others = [asyncio.create_task(ranker.rank(ASK)) for _ in range(5)]
            await engine.called(2)
            first.cancel()

            assert [bits(answer) for answer in await asyncio.gather(*others)] == [expected] * 5
            assert engine.calls == [3, 3, 3]  # Computed, abandoned, computed once for five.

    asyncio.run(work())


def test_the_fingerprint_changes_with_any_weight(random_checkpoint: Path, tmp_path: Path) -> None:
    for file in random_checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    before = locate(str(tmp_path))
    weights = tmp_path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1  # Far behind what the quick revision looks at.
    fingerprint = before.fingerprint()
    weights.write_bytes(content)

    assert locate(str(tmp_path)).fingerprint() != fingerprint
    assert locate(BUILTIN).fingerprint() == locate(BUILTIN).fingerprint()


def test_the_hubs_cache_knows_the_fingerprint_of_a_file(tmp_path: Path) -> None:
    builtin = locate(BUILTIN)
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots"
    blobs.mkdir()
    snapshot.mkdir()
    for file in builtin.path.iterdir():
        if file.suffix in (".json", ".safetensors"):
            (snapshot / file.name).write_bytes(file.read_bytes())
    weights = snapshot / "model.safetensors"
    for name in ("a" * 64, "b" * 64):
        (blobs / name).write_bytes(weights.read_bytes())
    found = []
    for name in ("a" * 64, "b" * 64):
        weights.unlink()
        weights.symlink_to(blobs / name)
        found.append(locate(str(snapshot)).fingerprint())

    assert found[0] != found[1]  # The name was believed, the file not read.


# Through the front door


@pytest.fixture
def cached_client() -> Iterator[TestClient]:
    with asyncio.Runner() as runner:
        context = open_app(Settings(engine="fake"))
        app = runner.run(context.__aenter__())
        yield TestClient(app)
        runner.run(context.__aexit__(None, None, None))


BODY = {"query": ASK.query, "documents": list(TEXTS)}


def metric(client: TestClient, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    [value] = [line.split()[1] for line in lines if line.startswith(name + " ")]
    return float(value)


def test_hits_are_seen_in_the_answer_and_in_the_metrics(cached_client: TestClient) -> None:
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
def test_every_dialect_can_do_without(
    cached_client: TestClient, path: str, body: dict[str, object]
) -> None:
    replies = [cached_client.post(path, json=body | more) for more in ({}, {}, {"cache": False})]

    assert [reply.status_code for reply in replies] == [200] * 3
    assert [reply.headers["x-rankd-cached"] for reply in replies] == ["0", "3", "0"]
    assert all("x-rankd-warnings" not in reply.headers for reply in replies)
