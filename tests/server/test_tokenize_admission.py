"""`/tokenize` is work like any other: bounded, counted while it waits, and refused."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from rankd.config.settings import Settings
from rankd.server.app import open_app


async def tokenize(client: httpx.AsyncClient, text: str, **fields: Any) -> httpx.Response:
    return await client.post("/tokenize", json={"prompt": text, **fields})


@pytest.mark.anyio
async def test_tokenizing_waits_and_is_refused_as_other_work() -> None:
    settings = Settings(engine="fake", max_waiting_tokens=100_000)
    async with open_app(settings) as app:
        encoder = app.state.service.ranker.encoder
        admission = app.state.service.ranker.admission
        encode, waits, go = encoder.tokenize, asyncio.Event(), asyncio.Event()

        async def slow(text: str) -> list[int]:
            waits.set()
            await go.wait()
            ids: list[int] = await encode(text)
            return ids

        encoder.tokenize = slow
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://rankd") as client:
            first = asyncio.create_task(tokenize(client, "word " * 60_000))
            await waits.wait()
            counted = admission.tokens, admission.requests
            refused = await tokenize(client, "word " * 60_000)
            go.set()
            answered = await first

    assert counted == (75_001, 1)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert answered.json()["count"] >= 60_000
    assert (admission.tokens, admission.requests) == (0, 0)


@pytest.mark.anyio
async def test_a_prompt_has_at_most_a_million_characters() -> None:
    async with open_app(Settings(engine="fake")) as app:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://rankd") as client:
            largest = await tokenize(client, "ab " * 333_333, return_token_strs=True)
            larger = await tokenize(client, "ab " * 333_334)

    assert largest.status_code == 200
    assert len(largest.json()["token_strs"]) == largest.json()["count"] > 300_000
    assert larger.status_code == 413
    assert "1,000,002 characters; the limit is 1,000,000: send it in parts" in larger.text


@pytest.mark.anyio
async def test_tokenizing_counts_for_the_limits_of_a_key() -> None:
    settings = Settings(engine="fake", key_requests_per_minute=2)
    async with open_app(settings) as app:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://rankd") as client:
            statuses = [(await tokenize(client, "text")).status_code for _ in range(3)]

    assert statuses == [200, 200, 429]
