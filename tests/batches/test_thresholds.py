"""Lines of a job are judged as their requests would be: by names, keys and thresholds."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from jobs import Client, Json, gated, line, opened

pytestmark = pytest.mark.anyio

SETTINGS: Json = {
    "instructions": {"lions": "Lions hunt at night."},
    "calibration": {"lions": {"threshold": 0.5, "platt": {"slope": 0.5, "intercept": -1.0}}},
    "aliases": {"firm": {"score_threshold": 0.8, "truncation": "chunk", "max_tokens_per_doc": 20}},
    "key_presets": {"acme": "lions"},
    "strict_model": True,
    "cache_mb": 0,
}
QUERY = "What is the capital of China?"
DOCUMENTS = ["Beijing is the capital of China.", "Bread. " * 50 + QUERY + " Bread." * 50, "Bread."]
BODIES: list[Json] = [
    {},
    {"score_threshold": 0.1, "top_n": 1},
    {"model": "firm", "return_details": True},
    {"preset": "default"},
    {"preset": "nobody knows it"},
    {"model": "unknown"},
    {"score_threshold": 2},
    {"nonsense": 1, "return_documents": True},
]
COUNTERS = ("documents", "prompt_tokens", "search_units")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("acme = key-of-acme\nother = key-of-other\n")
    return path


def bodies() -> list[Json]:
    return [{"query": QUERY, "documents": DOCUMENTS} | more for more in BODIES]


def without_id(reply: Json) -> Json:
    own = ("id", "created", "request_id")
    return {name: value for name, value in reply.items() if name not in own}


async def counts(http: httpx.AsyncClient) -> dict[str, int]:
    page = (await http.get("/metrics")).text
    found = {name: re.findall(rf"^rankd_{name}_total (\S+)$", page, re.M)[0] for name in COUNTERS}
    return {name: int(float(number)) for name, number in found.items()}


@pytest.mark.parametrize("key", ["key-of-acme", "key-of-other"])
async def test_a_line_gets_what_its_key_would_get_also_after_a_restart(
    key: str, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {**SETTINGS, "api_keys_file": keys}
    monkeypatch.setattr("rankd.batches.service.CONCURRENCY", 2)
    async with opened(tmp_path / "jobs", **settings) as app:
        client = Client(app.app, key)
        gated(app, free=1)
        job = await client.begin([line(str(n), **body) for n, body in enumerate(bodies())])
        await client.until(job["id"], lambda job: job["request_counts"]["completed"] == 1)
    async with opened(tmp_path / "jobs", **settings) as app:
        client = Client(app.app, key)
        done = await client.ended(job["id"])
        files = done["output_file_id"], done["error_file_id"]
        rows = {row["custom_id"]: row for file in files for row in await client.rows(file)}
        alone = [await client.http.post("/v1/rerank", json=body) for body in bodies()]

    assert [reply.status_code for reply in alone] == [200, 200, 200, 200, 400, 404, 400, 200]
    assert len(rows) == len(alone)
    for number, reply in enumerate(alone):
        row = rows[str(number)]["response"]
        assert row["status_code"] == reply.status_code
        assert without_id(row["body"]) == without_id(reply.json())
        assert row["body"].get("request_id", row["request_id"]) == row["request_id"]
    by_key = rows["0"]["response"]["body"]["meta"].get("preset")
    assert by_key == ("lions" if key == "key-of-acme" else None)


async def test_a_line_counts_once_like_any_request(tmp_path: Path) -> None:
    async with opened(tmp_path, **{**SETTINGS, "key_presets": {}}) as client:
        before = await counts(client.http)
        job = await client.begin(
            [line(str(number), **body) for number, body in enumerate(bodies())]
        )
        await client.ended(job["id"])
        by_lines = await counts(client.http)
        await asyncio.gather(*(client.http.post("/v1/rerank", json=body) for body in bodies()))
        by_requests = await counts(client.http)

    gained = {name: by_lines[name] - before[name] for name in COUNTERS}
    assert gained == {name: by_requests[name] - by_lines[name] for name in COUNTERS}
    assert gained["documents"] == 5 * len(DOCUMENTS)
