"""Lines get the presets, aliases and thresholds that their requests would get by themselves."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from jobs import Client, Json, gate_engine, line, open_client

from support.client_prompts import WAYS

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
    {"preset": "unknown preset"},
    {"model": "unknown"},
    {"score_threshold": 2},
    {"nonsense": 1, "return_documents": True},
    {"relevant_spans": {"threshold": 0}},
    WAYS["vLLM's and vllm-ascend's tutorials"].body(QUERY, DOCUMENTS),
    WAYS["query formatted, documents bare"].body(QUERY, DOCUMENTS),
]
COUNTERS = ("documents", "prompt_tokens", "search_units")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("acme = key-of-acme\nother = key-of-other\n")
    return path


def bodies() -> list[Json]:
    return [{"query": QUERY, "documents": DOCUMENTS} | more for more in BODIES]


def without_ids(reply: Json) -> Json:
    ids = ("id", "created", "request_id")
    return {name: value for name, value in reply.items() if name not in ids}


async def counters(http: httpx.AsyncClient) -> dict[str, int]:
    page = (await http.get("/metrics")).text
    found = {name: re.findall(rf"^rankd_{name}_total (\S+)$", page, re.M)[0] for name in COUNTERS}
    return {name: int(float(number)) for name, number in found.items()}


@pytest.mark.parametrize("key", ["key-of-acme", "key-of-other"])
async def test_a_line_gets_the_same_answer_as_a_request_with_its_key_also_after_a_restart(
    key: str, keys: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {**SETTINGS, "api_keys_file": keys, "concurrency": 2}
    async with open_client(tmp_path / "jobs", **settings) as app:
        client = Client(app.app, key)
        gate_engine(app, free=1)
        job = await client.start_job([line(str(n), **body) for n, body in enumerate(bodies())])
        await client.wait_until(job["id"], lambda job: job["request_counts"]["completed"] >= 1)
    async with open_client(tmp_path / "jobs", **settings) as app:
        client = Client(app.app, key)
        done = await client.wait_until_ended(job["id"])
        files = done["output_file_id"], done["error_file_id"]
        rows = {row["custom_id"]: row for file in files for row in await client.rows(file)}
        alone = [await client.http.post("/v1/rerank", json=body) for body in bodies()]

    assert [reply.status_code for reply in alone] == [
        *(200, 200, 200, 200, 400, 404, 400, 200),
        *(200, 200, 200),
    ]
    assert len(rows) == len(alone)
    for number, reply in enumerate(alone):
        row = rows[str(number)]["response"]
        assert row["status_code"] == reply.status_code
        assert without_ids(row["body"]) == without_ids(reply.json())
        assert row["body"].get("request_id", row["request_id"]) == row["request_id"]
        if number >= len(alone) - 2:
            assert "Qwen3-Reranker's prompt" in row["body"]["meta"]["warnings"][0]
    by_key = rows["0"]["response"]["body"]["meta"].get("preset")
    assert by_key == ("lions" if key == "key-of-acme" else None)


async def test_metrics_count_a_line_once_like_any_request(tmp_path: Path) -> None:
    async with open_client(tmp_path, **{**SETTINGS, "key_presets": {}}) as client:
        before = await counters(client.http)
        job = await client.start_job(
            [line(str(number), **body) for number, body in enumerate(bodies())]
        )
        await client.wait_until_ended(job["id"])
        by_lines = await counters(client.http)
        await asyncio.gather(*(client.http.post("/v1/rerank", json=body) for body in bodies()))
        by_requests = await counters(client.http)

    gained = {name: by_lines[name] - before[name] for name in COUNTERS}
    assert gained == {name: by_requests[name] - by_lines[name] for name in COUNTERS}
    assert gained["documents"] == 8 * len(DOCUMENTS)
