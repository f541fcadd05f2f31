"""Streamed answers: every result once, as soon as it is computed, then the answer or the error."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rankd.config.settings import Settings
from rankd.errors import DeadlineExceeded, EngineDown
from rankd.ranking.scheduler import Scheduler
from rankd.server.app import open_app
from rankd.types import Prompt
from support.servers import Server, family, serving

Json = dict[str, Any]

LINES = {"accept": "application/x-ndjson"}
DOCUMENTS = ["Gravity attracts two bodies.", "The capital of China is Beijing.", "Bread."]
BODY: Json = {"query": "What is the capital of China?", "documents": DOCUMENTS}


def lines_of(reply: Any) -> list[Any]:
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/x-ndjson"
    assert reply.text.endswith("\n")
    return [json.loads(line) for line in reply.text.splitlines()]


def test_every_result_has_a_line_and_the_ordinary_answer_is_last(client: TestClient) -> None:
    reply = client.post("/v1/rerank", json=BODY | {"top_n": 2}, headers=LINES)
    alone = client.post("/v1/rerank", json=BODY | {"top_n": 2}).json()
    every = client.post("/v1/rerank", json=BODY).json()

    *results, answer = lines_of(reply)
    assert sorted(result["index"] for result in results) == [0, 1, 2]
    scores = {result["index"]: result["relevance_score"] for result in results}
    assert scores == {one["index"]: one["relevance_score"] for one in every["results"]}
    assert sum(result["tokens"] for result in results) == answer["usage"]["prompt_tokens"]
    assert answer["results"] == alone["results"]
    assert answer.keys() == alone.keys()


def test_headers_keep_proxies_from_buffering(client: TestClient) -> None:
    reply = client.post("/v1/rerank", json=BODY, headers=LINES)

    assert reply.headers["x-accel-buffering"] == "no"
    assert reply.headers["cache-control"] == "no-cache"
    assert "content-length" not in reply.headers
    assert "content-encoding" not in reply.headers


def test_documents_below_the_threshold_have_no_line_and_totals_no_header(
    client: TestClient,
) -> None:
    every = client.post("/v1/rerank", json=BODY).json()["results"]
    best = every[0]["relevance_score"]

    reply = client.post("/v1/rerank", json=BODY | {"score_threshold": best}, headers=LINES)

    *results, answer = lines_of(reply)
    kept = [one["index"] for one in every if one["relevance_score"] >= best]
    assert sorted(result["index"] for result in results) == sorted(kept)
    assert answer["meta"]["below_threshold"] == len(DOCUMENTS) - len(kept) > 0
    for name in ("x-rankd-usage", "x-rankd-cached", "x-rankd-below-threshold"):
        assert name not in reply.headers


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("application/x-ndjson", True),
        ("application/json, Application/X-NDJSON ;q=0.5", True),
        ("application/x-ndjson;q=0", False),
        ("application/json", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_the_accept_header_selects_the_stream(
    accept: str, wanted: bool, client: TestClient
) -> None:
    reply = client.post("/v1/rerank", json=BODY, headers={"accept": accept})

    assert (reply.headers["content-type"] == "application/x-ndjson") is wanted


@pytest.mark.parametrize(
    "path", ["/rerank", "/voyage/v1/rerank", "/tei/rerank", "/cohere/v2/rerank"]
)
def test_the_last_line_is_the_answer_of_the_dialect(path: str, client: TestClient) -> None:
    body = {"query": "q", "texts": DOCUMENTS} if "tei" in path else {**BODY, "query": "q"}
    *results, answer = lines_of(client.post(path, json=body, headers=LINES))
    alone = client.post(path, json=body).json()

    assert len(results) == 3
    assert all("index" in result for result in results)
    if isinstance(alone, list):
        assert answer == alone
    else:
        assert answer.keys() == alone.keys()
        assert "index" not in answer


def test_raw_scores_hold_in_every_line(client: TestClient) -> None:
    *results, answer = lines_of(
        client.post("/v1/rerank", json=BODY | {"raw_scores": True}, headers=LINES)
    )

    assert any(result["relevance_score"] < 0 for result in results)
    assert {one["index"]: one["relevance_score"] for one in answer["results"]} == {
        one["index"]: one["relevance_score"] for one in results
    }


def test_equal_documents_and_documents_in_chunks_have_one_line_each(client: TestClient) -> None:
    long = "Beijing is a large city in the north. " * 30
    body = {
        "query": "Beijing",
        "documents": ["a", long, "a", long],
        "max_tokens_per_doc": 40,
        "max_chunks_per_doc": 5,
    }
    *results, answer = lines_of(client.post("/v1/rerank", json=body, headers=LINES))

    assert sorted(result["index"] for result in results) == [0, 1, 2, 3]
    assert {one["index"]: one["relevance_score"] for one in answer["results"]} == {
        one["index"]: one["relevance_score"] for one in results
    }


def test_an_invalid_request_gets_an_ordinary_error_response(client: TestClient) -> None:
    replies = [
        client.post("/v1/rerank", json=body, headers=LINES)
        for body in ({}, BODY | {"documents": []}, BODY | {"documents": ["d"] * 21})
    ]

    assert [reply.status_code for reply in replies] == [400, 400, 413]
    assert all(reply.headers["content-type"] == "application/json" for reply in replies)


class Scripted:
    """A scheduler that reports some logits early.

    Args:
        early: (index, logit) reported one after the other.
        end: the returned logits, or the exception raised; None: never returns.
    """

    def __init__(self, scheduler: Scheduler, early: Sequence[tuple[int, float]], end: Any) -> None:
        self.engine = scheduler.engine
        self.cancelled = False
        self._early = early
        self._end = end

    async def score(
        self,
        prompts: Sequence[Prompt],
        *,
        on_logit: Callable[[int, float], None] | None = None,
        **_: Any,
    ) -> list[float]:
        for index, logit in self._early:
            await asyncio.sleep(0)
            if on_logit is not None:
                on_logit(index, logit)
        if isinstance(self._end, Exception):
            await asyncio.sleep(0.02)
            raise self._end
        if self._end is None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled = True
                raise
        return list(self._end)

    async def check(self) -> None:
        """It is always there."""


async def scripted(
    early: Sequence[tuple[int, float]], end: Any, **body: Any
) -> tuple[httpx.Response, Scripted]:
    async with open_app(Settings(engine="fake", cache_mb=0)) as app:
        engine = _scripted_in(app, early, end)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://rankd") as client:
            reply = await client.post("/v1/rerank", json=BODY | body, headers=LINES)
    return reply, engine


def _scripted_in(app: FastAPI, early: Sequence[tuple[int, float]], end: Any) -> Scripted:
    engine = Scripted(app.state.service.ranker.scheduler, early, end)
    app.state.service.ranker.scheduler = engine
    return engine


@pytest.mark.anyio
async def test_an_error_after_the_first_line_is_the_last_line() -> None:
    reply, _ = await scripted([(1, 2.0)], EngineDown("the engine is gone"))

    result, last = lines_of(reply)
    assert result["index"] == 1
    assert last["error"]["code"] == "engine_down"
    assert last["status_code"] == 503
    assert last["retry_after"] >= 1


@pytest.mark.anyio
async def test_an_error_before_the_first_line_is_an_ordinary_response() -> None:
    reply, _ = await scripted([], EngineDown("the engine is gone"))

    assert reply.status_code == 503
    assert reply.headers["retry-after"]


@pytest.mark.anyio
async def test_a_bug_after_the_first_line_is_the_last_line_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reply, _ = await scripted([(0, 1.0)], ZeroDivisionError("a secret document"))

    *_, last = lines_of(reply)
    assert last["error"]["code"] == "internal_error"
    assert "ZeroDivisionError" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.anyio
async def test_a_repeated_engine_call_repeats_and_changes_no_result() -> None:
    # As after a crash of the engine: the second call's logits differ in the last bits.
    reply, _ = await scripted([(2, 1.0), (2, 1.5), (0, 0.5)], [0.75, -1.0, 1.5])

    *results, answer = lines_of(reply)
    assert [result["index"] for result in results] == [2, 0, 1]
    assert {one["index"]: one["relevance_score"] for one in answer["results"]} == {
        one["index"]: one["relevance_score"] for one in results
    }
    assert results[0]["relevance_score"] == pytest.approx(0.7310586)


@pytest.mark.anyio
async def test_a_logit_that_is_not_a_number_is_an_error() -> None:
    reply, _ = await scripted([(0, 1.0), (1, float("nan"))], [1.0, float("nan"), 1.0])

    first, last = lines_of(reply)
    assert first["index"] == 0
    assert last["error"]["code"] == "internal_error"


@pytest.mark.anyio
async def test_a_deadline_ends_a_stream_with_an_error_or_a_partial_answer() -> None:
    late = DeadlineExceeded([None, 1.0, None])
    whole, _ = await scripted([(1, 1.0)], late)
    part, _ = await scripted([(1, 1.0)], late, partial=True)

    assert [line.get("index") for line in lines_of(whole)] == [1, None]
    assert lines_of(whole)[-1]["status_code"] == 504
    _, answer = lines_of(part)
    assert [one["index"] for one in answer["results"]] == [1]
    assert answer["meta"]["not_scored"] == [0, 2]


@pytest.mark.anyio
async def test_a_client_that_disconnects_cancels_its_work() -> None:
    async with open_app(Settings(engine="fake", cache_mb=0)) as app:
        engine = _scripted_in(app, [(1, 2.0)], None)
        sent: list[Any] = []
        left = asyncio.Event()
        messages = [_request()]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)
            if message["type"] == "http.response.body":
                left.set()

        async with asyncio.timeout(60):
            await app(_scope(), receive, send)
        await asyncio.sleep(0)

        assert json.loads(sent[1]["body"])["index"] == 1
        assert engine.cancelled
        assert app.state.service.drain.running == 0


@pytest.mark.anyio
async def test_a_server_that_stops_sends_an_error_as_the_last_line() -> None:
    async with open_app(Settings(engine="fake", cache_mb=0)) as app:
        _scripted_in(app, [(1, 2.0)], None)
        sent: list[Any] = []
        begun = asyncio.Event()
        messages = [_request()]

        async def receive() -> Any:
            return messages.pop() if messages else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)
            if message["type"] == "http.response.body":
                begun.set()

        call = asyncio.ensure_future(app(_scope(), receive, send))
        async with asyncio.timeout(60):
            await begun.wait()
            call.cancel()
            await asyncio.wait([call])
        # Later messages would find a closed connection.
        _, result, last = list(sent)

    assert json.loads(result["body"])["index"] == 1
    assert json.loads(last["body"])["error"]["code"] == "shutting_down"
    assert not last["more_body"]


def _request() -> Json:
    return {"type": "http.request", "body": json.dumps(BODY).encode(), "more_body": False}


def _scope() -> Json:
    return {
        "type": "http",
        "method": "POST",
        "path": "/v1/rerank",
        "raw_path": b"/v1/rerank",
        "query_string": b"",
        "headers": [(b"accept", b"application/x-ndjson")],
    }


# The real engine, over a real connection.


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    options = ("--self-check", "off", "--cache-mb", "0", "--batch-tokens", "512")
    with serving("builtin", *options) as server:
        yield server


def _long(count: int) -> Json:
    texts = [f"document {number} " + "and so on " * 100 for number in range(count)]
    return {"query": "q", "documents": texts, "return_documents": False}


def test_lines_arrive_while_other_documents_are_computed(server: Server) -> None:
    arrived: list[float] = []
    lines: list[Json] = []
    with httpx.stream(
        "POST", f"{server.url}/v1/rerank", json=_long(60), headers=LINES, timeout=120
    ) as reply:
        for line in reply.iter_lines():
            arrived.append(time.monotonic())
            lines.append(json.loads(line))

    *results, answer = lines
    assert sorted(result["index"] for result in results) == list(range(60))
    assert len(answer["results"]) == 60
    # More than thirty batches: the first lines arrive long before the last are computed.
    assert len({round(moment, 3) for moment in arrived}) > 5
    assert answer["results"][0]["relevance_score"] == max(
        result["relevance_score"] for result in results
    )


@pytest.mark.slow
def test_a_stream_survives_a_crash_of_the_engine_without_repeating_results(server: Server) -> None:
    lines: list[Json] = []
    with httpx.stream(
        "POST", f"{server.url}/v1/rerank", json=_long(80), headers=LINES, timeout=120
    ) as reply:
        for line in reply.iter_lines():
            lines.append(json.loads(line))
            if len(lines) == 5:
                os.kill(family(server.process.pid)[-1], signal.SIGKILL)

    *results, answer = lines
    assert [result["index"] for result in results].count(0) == 1
    assert sorted(result["index"] for result in results) == list(range(80))
    assert {one["index"]: one["relevance_score"] for one in answer["results"]} == {
        one["index"]: one["relevance_score"] for one in results
    }


def test_a_client_that_disconnects_frees_the_engine(server: Server) -> None:
    with httpx.stream(
        "POST", f"{server.url}/v1/rerank", json=_long(900), headers=LINES, timeout=120
    ) as reply:
        next(reply.iter_lines())
    for _ in range(1200):
        metrics = httpx.get(f"{server.url}/metrics", timeout=30).text
        if "rankd_waiting_tokens 0.0" in metrics:
            break
        time.sleep(0.05)

    assert "rankd_waiting_tokens 0.0" in metrics
    assert 'rankd_abandoned_requests_total{reason="client"} 1.0' in metrics


@pytest.mark.slow
def test_a_draining_server_finishes_its_streams() -> None:
    with serving("builtin", "--self-check", "off", "--batch-tokens", "512") as server:
        with httpx.stream(
            "POST", f"{server.url}/v1/rerank", json=_long(60), headers=LINES, timeout=120
        ) as reply:
            lines = reply.iter_lines()
            first = json.loads(next(lines))
            stopping = threading.Thread(target=server.process.send_signal, args=[signal.SIGTERM])
            stopping.start()
            rest = [json.loads(line) for line in lines]
            stopping.join()
        status, _ = server.ended()

    assert "index" in first
    assert len(rest[-1]["results"]) == 60
    assert status == 0


@pytest.mark.slow
def test_a_second_signal_ends_a_stream_with_an_error() -> None:
    with serving("builtin", "--self-check", "off", "--batch-tokens", "512") as server:
        with httpx.stream(
            "POST", f"{server.url}/v1/rerank", json=_long(900), headers=LINES, timeout=120
        ) as reply:
            lines = reply.iter_lines()
            next(lines)
            for _ in range(2):
                server.process.send_signal(signal.SIGTERM)
                time.sleep(0.2)
            *_, last = (json.loads(line) for line in lines)
        status, _ = server.ended()

    assert last["error"]["code"] == "shutting_down"
    assert last["status_code"] == 503
    assert status == 0
