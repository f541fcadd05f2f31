"""Admission over HTTP: a slow engine, small limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from rankd.config.settings import Settings
from rankd.ranking.admission import Admission
from rankd.ranking.scheduler import Scheduler
from rankd.server.app import open_app
from rankd.types import Prompt, RankRequest

pytestmark = pytest.mark.anyio


class SlowScheduler(Scheduler):
    """Scores when `go` is set; records the number of prompts and the caller of each call."""

    def __init__(self, inner: Scheduler) -> None:
        super().__init__(inner.engine)
        self.go = asyncio.Event()
        self.calls: list[int] = []
        self.callers: list[str] = []

    async def score(self, prompts: Sequence[Prompt], **options: Any) -> list[float]:
        self.calls.append(len(prompts))
        self.callers.append(f"{options['key']}/{options['user']}")
        await self.go.wait()
        return await super().score(prompts, **options)


class Served:
    def __init__(self, app: FastAPI, http: httpx.AsyncClient, engine: SlowScheduler) -> None:
        self.admission: Admission = app.state.service.ranker.admission
        self.encoder = app.state.service.ranker.encoder
        self.http, self.engine = http, engine

    def post(self, *documents: str) -> asyncio.Task[httpx.Response]:
        body = {"query": "q", "documents": documents}
        return asyncio.create_task(self.http.post("/v1/rerank", json=body))

    async def until(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not happened():  # noqa: ASYNC110  (it happens in rankd, which sets no event)
                await asyncio.sleep(0.005)

    async def metric(self, name: str) -> float:
        text = (await self.http.get("/metrics")).text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


@asynccontextmanager
async def served(**limits: Any) -> AsyncIterator[Served]:
    # By default without a cache, so that every request has to wait for the engine.
    settings = Settings.model_validate(
        {"engine": "fake", "access_log": False, "cache_mb": 0, **limits}
    )
    async with open_app(settings) as app:
        engine = SlowScheduler(app.state.service.ranker.scheduler)
        app.state.service.ranker.scheduler = engine
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://rankd") as http:
            yield Served(app, http, engine)


async def test_requests_above_the_limit_are_refused_and_answered_later() -> None:
    async with served(max_waiting_requests=2) as server:
        before = await server.metric('rankd_refused_total{reason="waiting_requests"}')
        admitted = [server.post("a"), server.post("b")]
        await server.until(lambda: len(server.engine.calls) == 2)
        assert await server.metric("rankd_waiting_requests") == 2
        assert await server.metric("rankd_waiting_tokens") == server.admission.tokens > 0

        refused = await server.post("c")

        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "overloaded"
        assert "2 requests wait already; the limit is 2" in refused.json()["error"]["message"]
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert await server.metric('rankd_refused_total{reason="waiting_requests"}') == before + 1
        server.engine.go.set()
        assert [reply.status_code for reply in await asyncio.gather(*admitted)] == [200, 200]
        assert (await server.post("c")).status_code == 200
        assert (server.admission.requests, server.admission.tokens) == (0, 0)
        assert await server.metric("rankd_drain_tokens_per_second") > 0


async def test_a_request_is_admitted_whole_or_not_at_all() -> None:
    async with served(max_waiting_tokens=400) as server:
        first = server.post("one")
        await server.until(lambda: server.engine.calls == [1])
        price = server.admission.tokens
        documents = [f"another document {number}" for number in range(400 // price + 1)]

        refused = await server.post(*documents)

        assert refused.status_code == 429
        assert server.engine.calls == [1]
        assert server.admission.tokens == price
        # Equal documents are one pair, so any number of them fits.
        second = server.post(*["the same"] * 20)
        await server.until(lambda: server.engine.calls == [1, 1])
        server.engine.go.set()
        assert (await first).status_code == (await second).status_code == 200
        assert (await server.post(*documents)).status_code == 200  # Nothing else waits.


async def test_a_client_that_disconnects_releases_its_tokens_at_once() -> None:
    async with served(max_waiting_requests=1) as server:
        disconnected = server.post("a")
        await server.until(lambda: server.engine.calls == [1])
        assert (await server.post("b")).status_code == 429

        disconnected.cancel()
        await server.until(lambda: disconnected.done())

        assert (server.admission.requests, server.admission.tokens) == (0, 0)
        server.engine.go.set()
        assert (await server.post("b")).status_code == 200


async def test_a_request_that_surely_does_not_fit_is_not_encoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with served(max_waiting_tokens=300, max_request_tokens=2_000) as server:
        held = server.post("a", "b", "c")
        await server.until(lambda: bool(server.engine.calls))
        encoded: list[Sequence[RankRequest]] = []
        encode = server.encoder.encode

        async def recording(requests: Sequence[RankRequest]) -> object:
            encoded.append(requests)
            return await encode(requests)

        monkeypatch.setattr(server.encoder, "encode", recording)

        full = await server.post(*map(str, range(10)))
        large = await server.post(*[f"{number} " * 50 for number in range(100)])

        assert (full.status_code, large.status_code) == (429, 413)
        assert "retry-after" not in large.headers
        assert not encoded
        server.engine.go.set()
        await held


async def test_cached_documents_need_no_room_in_the_queue() -> None:
    async with served(cache_mb=1, max_waiting_tokens=300, max_request_tokens=1_000) as server:
        server.engine.go.set()
        assert (await server.post("a", "b")).status_code == 200
        server.engine.go.clear()
        held = server.post("c", "d", "e")
        await server.until(lambda: len(server.engine.calls) == 2)
        waiting = server.admission.tokens

        cached = await server.post("a", "b")
        half_cached = await server.post("a", "b", "f", "g")

        assert cached.headers["x-rankd-cached"] == "2"
        assert half_cached.status_code == 429
        # Only documents that are not cached count.
        price = half_cached.json()["error"]["message"].split("this request has ")[1].split()[0]
        assert int(price) < waiting
        assert server.admission.tokens == waiting
        server.engine.go.set()
        await held


async def test_a_request_that_hardly_fits_is_not_encoded_unless_its_shortest_document_is_cached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with served(cache_mb=1, max_waiting_tokens=1_000) as server:
        held = server.post(*map(str, range(12)))
        await server.until(lambda: bool(server.engine.calls))
        encoded: list[str] = []
        encode = server.encoder.encode

        async def recording(requests: Sequence[RankRequest]) -> object:
            encoded.extend(text for request in requests for text in request.documents)
            return await encode(requests)

        monkeypatch.setattr(server.encoder, "encode", recording)
        before = await server.metric('rankd_refused_total{reason="waiting_tokens"}')

        refused = await server.post(*[f"{number} and " * 300 for number in range(20)], "short")

        assert refused.status_code == 429
        assert "by their length" in refused.json()["error"]["message"]
        assert encoded == ["short"]
        assert await server.metric('rankd_refused_total{reason="waiting_tokens"}') == before + 1
        assert server.admission.requests == 1
        server.engine.go.set()
        await held


async def test_chunks_that_will_hardly_fit_are_not_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(cache_mb=1, max_waiting_tokens=10_000) as server:
        held = server.post("c", "d", "e")
        await server.until(lambda: bool(server.engine.calls))
        encoded: list[RankRequest] = []
        encode = server.encoder.encode

        async def recording(requests: Sequence[RankRequest]) -> object:
            encoded.extend(requests)
            return await encode(requests)

        monkeypatch.setattr(server.encoder, "encode", recording)
        short = {"query": "q", "truncation": "chunk", "documents": ["some words " * 20_000]}
        long = {**short, "documents": ["some words " * 2_000_000]}

        replies = [await server.http.post("/v1/rerank", json=body) for body in (short, long)]

        # One chunk of either would fit. The long one is not even encoded to look it up.
        assert [reply.status_code for reply in replies] == [429, 429]
        assert ["by their length" in reply.text for reply in replies] == [True, True]
        assert [len(request.documents[0]) for request in encoded] == [len(short["documents"][0])]
        server.engine.go.set()
        await held


async def test_documents_that_must_not_be_truncated_are_refused_after_the_queue_check() -> None:
    async with served(cache_mb=1, max_waiting_tokens=300) as server:
        held = server.post("c", "d", "e")
        await server.until(lambda: bool(server.engine.calls))
        documents = [f"{number} word " * 5_000 for number in range(3)]
        body = {"query": "q", "documents": documents, "truncation": False}

        refused = await server.http.post("/jina/v1/rerank", json=body)
        server.engine.go.set()
        await held
        wrong = await server.http.post("/jina/v1/rerank", json=body)

        # Whether documents fit without truncation is checked only if there is room to encode.
        assert (refused.status_code, wrong.status_code) == (429, 400)


async def test_the_engine_tells_callers_apart_without_their_keys() -> None:
    async with served(api_keys=("ann", "bob")) as server:
        server.engine.go.set()

        async def post(key: str, **fields: object) -> None:
            body = {"query": "q", "documents": ["d"], **fields}
            await server.http.post("/v1/rerank", json=body, headers={"api-key": key})

        await post("ann")
        await post("ann", user="eve")
        await post("bob")
        await post("bob", user=5)
        await post("bob")

    ann, eve, *bobs = server.engine.callers
    assert len({ann, eve, *bobs}) == 3
    assert eve == f"{ann}eve"
    assert len(set(bobs)) == 1
    assert not any("ann" in caller or "bob" in caller for caller in server.engine.callers)
