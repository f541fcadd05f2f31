"""Where a request's time went: in `Server-Timing`, in /metrics, and in TEI's own headers."""

from __future__ import annotations

import asyncio
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import httpx
import pytest
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY

from rankd.config.settings import Settings
from rankd.dialects import DIALECTS
from rankd.dialects.base import Dialect
from rankd.errors import InternalError
from rankd.server.app import open_app
from rankd.telemetry.timings import StageTimings, server_timing
from support.dialects import example, home
from support.servers import serving

BODY = {"query": "q", "documents": ["a", "b"]}

# https://www.w3.org/TR/server-timing/#the-server-timing-header-field
METRIC = re.compile(r"([a-z]+);dur=(\d+\.\d\d)")


def timings(reply: Any) -> dict[str, float]:
    """Milliseconds, by stage; the header holds nothing else."""
    parts = reply.headers["server-timing"].split(", ")
    found = [METRIC.fullmatch(part) for part in parts]
    assert all(found), parts
    return {one[1]: float(one[2]) for one in found if one}


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_every_dialect_tells_its_stages_in_order(client: TestClient, dialect: Dialect) -> None:
    path, body = home(dialect), example(dialect)

    reply = client.post(path, json=body)

    assert reply.status_code == 200, reply.text
    told = timings(reply)
    assert list(told) == ["parse", "tokenise", "cache", "queue", "engine", "render", "total"]
    assert sum(told.values()) <= 2 * told["total"] + 0.1
    assert reply.headers["x-rankd-usage"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/score", {"text_1": "q", "text_2": ["a", "b"]}),
        ("/v1/batch_rerank", {"requests": [BODY, BODY | {"query": "r"}]}),
        ("/batch_rerank", {"queries": ["q", "r"], "documents": ["a", "b"]}),
    ],
)
def test_what_has_many_rankings_tells_the_longest_of_each_stage(
    client: TestClient, path: str, body: dict[str, Any]
) -> None:
    told = timings(client.post(path, json=body))

    assert {"tokenise", "engine", "render", "total"} <= set(told)
    assert max(told.values()) == told["total"]


def test_what_only_reads_has_no_timings(client: TestClient) -> None:
    assert "server-timing" not in client.get("/readyz").headers
    assert "server-timing" not in client.post("/tokenize", json={"prompt": "a"}).headers


def test_a_stream_tells_what_is_known_when_it_begins(client: TestClient) -> None:
    reply = client.post("/v1/rerank", json=BODY, headers={"accept": "application/x-ndjson"})

    told = timings(reply)
    assert {"parse", "tokenise", "cache", "total"} <= set(told)


def test_an_error_tells_how_far_it_came(client: TestClient) -> None:
    service = client.app.state.service  # type: ignore[attr-defined]
    with mock.patch.object(service.ranker.engine, "score", side_effect=InternalError("oh")):
        reply = client.post("/v1/rerank", json=BODY)

    assert reply.status_code == 500
    assert list(timings(reply)) == ["parse", "tokenise", "cache", "queue", "engine", "total"]


def test_what_is_known_waits_for_no_engine() -> None:
    async def ask() -> list[Any]:
        async with open_app(Settings(engine="fake", access_log=False)) as app:
            client = TestClient(app)
            return [await asyncio.to_thread(client.post, "/v1/rerank", json=BODY) for _ in "ab"]

    first, second = asyncio.run(ask())

    assert "engine" in timings(first)
    assert "engine" not in timings(second)


def test_each_stage_is_counted_once(client: TestClient) -> None:
    def counts() -> dict[str, float]:
        name = "rankd_stage_duration_seconds_count"
        stages = ("parse", "tokenise", "cache", "engine", "render")
        return {stage: REGISTRY.get_sample_value(name, {"stage": stage}) or 0 for stage in stages}

    before = counts()
    client.post("/v1/rerank", json=BODY)

    assert counts() == {stage: count + 1 for stage, count in before.items()}


@pytest.mark.parametrize(
    ("origins", "allowed"),
    [
        ((), None),
        (("https://a.example",), "https://a.example"),
        (("https://b.example",), None),
        (("*",), "*"),
    ],
)
def test_pages_of_allowed_origins_may_read_them(
    origins: tuple[str, ...], allowed: str | None
) -> None:
    async def ask() -> Any:
        settings = Settings(engine="fake", access_log=False, cors_origins=origins)
        async with open_app(settings) as app:
            headers = {"origin": "https://a.example"}
            return await asyncio.to_thread(
                TestClient(app).post, "/v1/rerank", json=BODY, headers=headers
            )

    reply = asyncio.run(ask())

    assert reply.headers.get("timing-allow-origin") == allowed
    exposed = reply.headers.get("access-control-expose-headers", "")
    assert ("server-timing" in exposed) is bool(origins)


def test_queue_ends_and_engine_begins_when_the_engine_starts() -> None:
    timings = StageTimings()
    with timings.scoring() as start:
        start()
        start()  # The engine died and starts again.

    queue, engine = timings.stages
    assert (queue.name, engine.name) == ("queue", "engine")
    assert queue.ended == engine.began


def test_a_call_that_the_engine_never_started_was_in_the_queue() -> None:
    timings = StageTimings()

    def wait() -> None:
        with timings.scoring():
            raise TimeoutError

    with pytest.raises(TimeoutError):
        wait()

    [stage] = timings.stages
    assert (stage.name, stage.failed) == ("queue", True)


@pytest.mark.slow
def test_a_request_behind_another_waits_in_the_queue() -> None:
    """Of the real native engine: the second one's time is mostly the first one's."""
    long = {"query": "q", "documents": [f"{place} " * 100 for place in range(20)]}
    options = ("--self-check", "off", "--cache-mb", "0", "--threads", "1", "--batch-tokens", "4096")
    with serving(*options) as server, ThreadPoolExecutor(2) as pool:
        first = pool.submit(httpx.post, f"{server.url}/v1/rerank", json=long, timeout=60)
        while not _waits(server.url):
            time.sleep(0.005)
        short = {"query": "q", "texts": ["a"]}
        second = httpx.post(f"{server.url}/tei/rerank", json=short, timeout=60)
        told, firsts = timings(second), timings(first.result())

    assert told["queue"] > 1
    assert firsts["engine"] > firsts["queue"]
    assert abs(int(second.headers["x-queue-time"]) - told["queue"]) <= 1


def _waits(url: str) -> bool:
    """Whether tokens wait to be scored there."""
    found = re.search(r"^rankd_waiting_tokens (\S+)", httpx.get(f"{url}/metrics").text, re.M)
    return found is not None and float(found[1]) > 0


def test_rankings_beside_each_other_are_told_by_their_longest() -> None:
    short, long = StageTimings(), StageTimings()
    short.add("engine", 0.0, 0.5)
    long.add("engine", 0.0, 1.0)
    long.add("engine", 1.0, 2.0)

    assert server_timing([short, long], 3.0) == "engine;dur=2000.00, total;dur=3000.00"
