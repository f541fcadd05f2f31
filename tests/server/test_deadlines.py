"""Deadlines: where they are set, when they begin, and the response when they pass."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from pydantic import TypeAdapter

from rankd.config.settings import Settings
from rankd.dialects import DIALECTS
from rankd.dialects.base import Dialect
from rankd.dialects.deepinfra import DeepInfra
from rankd.dialects.tutorials import Simple
from rankd.dialects.weaviate import Weaviate
from rankd.errors import DeadlineExceeded
from rankd.models.checkpoint import BUILTIN, locate
from rankd.prompts import EncodedRequest, PromptEncoder, open_encoder
from rankd.ranking.cache import MemoryStore, ScoreCache
from rankd.ranking.ranker import Ranker
from rankd.ranking.service import ModelService
from rankd.server.app import build
from rankd.server.middleware import KeyRing
from rankd.types import RankRequest
from support.dialects import example, home, index_of, with_documents
from support.servers import get, serving
from support.slow_engine import Slow

# Their scores have no index, so a response cannot be partial.
WITHOUT_INDEX = (Weaviate, Simple, DeepInfra)

each_dialect = pytest.mark.parametrize(
    "dialect", DIALECTS, ids=lambda dialect: type(dialect).__name__
)


@pytest.fixture(scope="module")
def encoder() -> PromptEncoder:
    return open_encoder(
        locate(BUILTIN),
        max_tokens=8192,
        instruction="Judge the document",
        max_instruction_tokens=512,
        executor=ThreadPoolExecutor(1),
    )


@contextmanager
def slow(encoder: PromptEncoder, ready: int, **settings: Any) -> Iterator[tuple[TestClient, Slow]]:
    """The app with an engine that scores `ready` prompts in time, and the engine."""
    engine = Slow(ready)
    service = ModelService(
        Ranker(encoder, engine, max_documents=100),
        "slow",
        timeout_ms=settings.pop("timeout_ms", 0),
    )
    app = build(service, Settings(engine="fake", max_documents=100, access_log=False), KeyRing())
    yield TestClient(app, raise_server_exceptions=False), engine


def listed(answer: Any) -> list[Any]:
    """The results of a response, under the dialect's name for them."""
    if isinstance(answer, list):
        return answer
    for name in ("results", "data", "rankings", "rerank", "records"):
        if name in answer:
            return list(answer[name])
    return list(answer["output"]["results"])


def request_body(count: int, **more: Any) -> dict[str, Any]:
    documents = [f"the capital of country {index}" for index in range(count)]
    return {"query": "the capital", "documents": documents, "timeout_ms": 50, **more}


# Responses.


@each_dialect
def test_without_partial_a_passed_deadline_is_a_504_with_the_count_of_scored_documents(
    encoder: PromptEncoder, dialect: Dialect
) -> None:
    body = example(dialect) | {"timeout_ms": 50}
    with slow(encoder, ready=1) as (client, _):
        reply = client.post(home(dialect), json=body)

    assert reply.status_code == 504
    assert reply.json()["message"].startswith("scored 1 of ")
    assert reply.json()["message"].endswith(" documents in time")
    TypeAdapter(dialect.failure).validate_python(reply.json())


@each_dialect
def test_a_partial_response_has_the_scored_documents_and_lists_the_rest(
    encoder: PromptEncoder, dialect: Dialect
) -> None:
    # Without top_n: it would shorten a partial response too.
    limits = ("top_n", "top_k", "topN", "rerankingConfiguration")
    body = with_documents(example(dialect), ["zero", "one"])
    body = {key: value for key, value in body.items() if key not in limits}
    body |= {"timeout_ms": 50, "partial": True}
    with slow(encoder, ready=1) as (client, _):
        reply = client.post(home(dialect), json=body)

    if isinstance(dialect, WITHOUT_INDEX):
        assert reply.status_code == 504
        assert reply.json()["message"].startswith("scored 1 of ")
        return
    assert reply.status_code == 200, reply.text
    TypeAdapter(dialect.response).validate_python(reply.json())
    assert [index_of(result) for result in listed(reply.json())] == [0]
    assert "documents were not scored in time: 1" in reply.headers["x-rankd-warnings"]


@each_dialect
def test_without_any_score_the_response_is_a_504_even_with_partial(
    encoder: PromptEncoder, dialect: Dialect
) -> None:
    body = example(dialect) | {"timeout_ms": 50, "partial": True}
    with slow(encoder, ready=0) as (client, _):
        reply = client.post(home(dialect), json=body)

    assert reply.status_code == 504
    assert reply.json()["message"].startswith("scored 0 of ")


@each_dialect
def test_partial_has_no_effect_before_the_deadline(
    encoder: PromptEncoder, dialect: Dialect
) -> None:
    body = example(dialect) | {"partial": True}
    with slow(encoder, ready=100) as (client, _):
        reply = client.post(home(dialect), json=body | {"timeout_ms": 60_000})
        without_deadline = client.post(home(dialect), json=body)

    assert reply.status_code == without_deadline.status_code == 200
    assert "x-rankd-warnings" not in reply.headers
    assert "not_scored" not in reply.text


def test_the_openai_dialect_lists_unscored_documents(encoder: PromptEncoder) -> None:
    with slow(encoder, ready=3) as (client, _):
        answer = client.post("/v1/rerank", json=request_body(8, partial=True)).json()
        cut = client.post("/v1/rerank", json=request_body(8, partial=True, top_n=2)).json()

    assert sorted(result["index"] for result in answer["results"]) == [0, 1, 2]
    assert answer["meta"]["not_scored"] == [3, 4, 5, 6, 7]
    assert answer["meta"]["warnings"] == ["5 of 8 documents were not scored in time: 3-7"]
    assert len(cut["results"]) == 2
    assert cut["meta"]["not_scored"] == [3, 4, 5, 6, 7]


def test_equal_documents_are_counted_one_by_one(encoder: PromptEncoder) -> None:
    documents = ["one", "two", "one", "three", "one"]
    with slow(encoder, ready=1) as (client, _):
        late = client.post("/v1/rerank", json=request_body(0, documents=documents))
        part = client.post("/v1/rerank", json=request_body(0, documents=documents, partial=True))

    assert late.json()["message"] == "scored 3 of 5 documents in time"
    assert part.json()["meta"]["not_scored"] == [1, 3]
    assert part.json()["meta"]["warnings"] == ["2 of 5 documents were not scored in time: 1, 3"]


def test_a_document_with_an_unscored_chunk_is_not_scored(encoder: PromptEncoder) -> None:
    documents = ["short", "one two three four five six seven eight nine ten", "last"]
    body = request_body(
        0, documents=documents, max_tokens_per_doc=4, max_chunks_per_doc=10, partial=True
    )
    with slow(encoder, ready=2) as (client, engine):
        one = client.post("/v1/rerank", json=body)
        engine.ready = 1000
        all_ = client.post("/v1/rerank", json=body)

    assert one.json()["meta"]["not_scored"] == [1, 2]
    assert [result["index"] for result in one.json()["results"]] == [0]
    # Prompts: one, at least two, and one.
    assert len(all_.json()["results"]) == 3


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/score", {"text_1": "q", "text_2": ["one", "two", "three"]}),
        ("/simple/batch_rerank", {"queries": ["q"], "documents": [["one", "two", "three"]]}),
    ],
)
def test_responses_without_an_index_are_never_partial(
    encoder: PromptEncoder, path: str, body: dict[str, Any]
) -> None:
    with slow(encoder, ready=2) as (client, _):
        reply = client.post(path, json=body | {"partial": True, "timeout_ms": 50})

    assert reply.status_code == 504
    assert reply.json()["message"] == "scored 2 of 3 documents in time"


def test_passed_deadlines_are_counted(encoder: PromptEncoder) -> None:
    def counted(client: TestClient) -> float:
        lines = client.get("/metrics").text.splitlines()
        name = 'rankd_abandoned_requests_total{reason="deadline"} '
        return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))

    with slow(encoder, ready=1) as (client, _):
        before = counted(client)
        client.post("/v1/rerank", json=request_body(3))
        client.post("/v1/rerank", json=request_body(3, partial=True))
        client.post("/v1/rerank", json=request_body(1))

        assert counted(client) - before == 2


# Settings, headers and fields.


@pytest.mark.parametrize(
    ("headers", "field", "default", "seconds"),
    [
        ({}, None, 0, None),
        ({}, 40_000, 0, 40),
        ({}, None, 30_000, 30),
        ({}, 40_000, 30_000, 40),  # The setting is a default, not a limit.
        ({"X-Rankd-Timeout-Ms": "20000"}, None, 30_000, 20),
        ({"X-Rankd-Timeout-Ms": "20000"}, 40_000, 0, 20),
        ({"X-Rankd-Timeout-Ms": "40000"}, 20_000, 0, 20),
        ({"X-Rankd-Timeout-Ms": " 86400000 "}, None, 0, 86_400),
        ({"Prefer": "wait=10"}, None, 0, 10),
        ({"Prefer": 'respond-async, Wait = "10"; foo=bar'}, 20_000, 0, 10),
        ({"Prefer": "wait"}, None, 0, None),
        ({"Prefer": "wait=0"}, None, 0, None),
        ({"Prefer": "wait=soon"}, None, 0, None),
        ({"Prefer": "handling=strict; wait=10"}, None, 0, None),  # A parameter of `handling`.
        ({"Prefer": "await=10"}, None, 0, None),
        ({"Prefer": "wait=999999999"}, None, 0, 86_400),
        ({"X-Envoy-Expected-Rq-Timeout-Ms": "15000"}, 20_000, 0, 15),
        ({"X-Envoy-Expected-Rq-Timeout-Ms": "0"}, None, 0, None),
        ({"X-Envoy-Expected-Rq-Timeout-Ms": "-1"}, None, 0, None),
        (
            {"X-Envoy-Expected-Rq-Timeout-Ms": "15000", "Prefer": "wait=10"},
            None,
            0,
            10,
        ),
    ],
)
def test_the_smallest_deadline_applies_else_the_default(
    encoder: PromptEncoder,
    headers: dict[str, str],
    field: int | None,
    default: int,
    seconds: float | None,
) -> None:
    with slow(encoder, ready=100, timeout_ms=default) as (client, engine):
        body = {**request_body(1), "timeout_ms": field}
        for path in ("/v1/rerank", "/weaviate/rerank"):
            reply = client.post(path, json=body, headers=headers)

            assert reply.status_code == 200, reply.text
            if seconds is None:
                assert engine.patience is None
            else:
                assert engine.patience is not None
                assert seconds - 5 < engine.patience <= seconds


@pytest.mark.parametrize("path", ["/v1/score", "/simple/batch_rerank"])
def test_the_header_applies_to_scores_and_batches(encoder: PromptEncoder, path: str) -> None:
    body = {"text_1": "q", "text_2": "d"}
    if "batch" in path:
        body = {"queries": ["q"], "documents": ["d"]}  # type: ignore[dict-item]
    with slow(encoder, ready=100) as (client, engine):
        client.post(path, json=body, headers={"X-Rankd-Timeout-Ms": "20000"})

    assert engine.patience is not None
    assert 15 < engine.patience <= 20


_LONG = ["9" * 400, "000000001" + "9" * 400]


@pytest.mark.parametrize("value", ["", "soon", "0", "-5", "1.5", "86400001", "٣", *_LONG])
def test_an_invalid_header_is_a_400(encoder: PromptEncoder, value: str) -> None:
    with slow(encoder, ready=100) as (client, _):
        reply = client.post(
            "/v1/rerank", json=request_body(1), headers=[(b"x-rankd-timeout-ms", value.encode())]
        )

    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "x-rankd-timeout-ms"


def test_an_invalid_partial_is_a_400(encoder: PromptEncoder) -> None:
    with slow(encoder, ready=100) as (client, _):
        reply = client.post("/v1/rerank", json=request_body(1, partial="perhaps"))

    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "partial"


# The start of the deadline.


class SlowEncoder(PromptEncoder):
    """An encoder that takes ten minutes for a request."""

    async def encode(self, requests: Sequence[RankRequest]) -> list[EncodedRequest]:
        await asyncio.sleep(600)
        return await super().encode(requests)


def test_the_deadline_applies_while_a_request_is_encoded(encoder: PromptEncoder) -> None:
    slow_encoder = SlowEncoder.__new__(SlowEncoder)
    slow_encoder.__dict__.update(encoder.__dict__)
    began = time.monotonic()
    with slow(slow_encoder, ready=100) as (client, _):
        reply = client.post("/v1/rerank", json=request_body(3, partial=True))

    assert reply.status_code == 504
    assert reply.json()["message"] == "scored 0 of 3 documents in time"
    assert time.monotonic() - began < 300


@pytest.mark.anyio
async def test_the_ranker_returns_a_partial_result(encoder: PromptEncoder) -> None:
    ranker = Ranker(encoder, Slow(ready=2), max_documents=10)
    request = RankRequest("q", ("a", "b", "c"), deadline=time.monotonic() + 0.05, partial=True)

    partial = await ranker.rank(request)
    with pytest.raises(DeadlineExceeded) as late:
        await ranker.rank_all([replace(request, partial=False), request])

    assert [scored_document.index for scored_document in partial] == [0, 1]
    assert late.value.message == "scored 4 of 6 documents in time"


@pytest.mark.anyio
async def test_documents_scored_before_the_deadline_are_cached(encoder: PromptEncoder) -> None:
    cache = ScoreCache([MemoryStore(1 << 20, ttl=60)])
    ranker = Ranker(encoder, Slow(ready=2), max_documents=10, cache=cache)
    request = RankRequest("q", ("a", "b", "c"), deadline=time.monotonic() + 0.05, partial=True)

    await ranker.rank(request)
    again = await ranker.rank(replace(request, deadline=time.monotonic() + 30))

    assert [scored_document.cached for scored_document in again] == [True, True, False]
    assert [scored_document.index for scored_document in again] == [0, 1, 2]


def test_the_deadline_includes_the_upload_of_the_body() -> None:
    body = json.dumps({"query": "q", "documents": ["d", "e"], "timeout_ms": 400}).encode()
    head = b"POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += b"Content-Length: %d\r\n\r\n"
    with serving("--engine", "fake") as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(head % len(body) + body[:10])
            time.sleep(1)
            connection.sendall(body[10:])
            answer = b"".join(iter(lambda: connection.recv(65536), b""))

    assert answer.startswith(b"HTTP/1.1 504 ")
    assert b"scored 0 of 2 documents in time" in answer


# With a model.


@pytest.mark.slow
def test_a_partial_response_has_the_scores_of_the_complete_one() -> None:
    documents = [f"document {number} " + "and so on " * (number % 100) for number in range(300)]
    request = {"query": "which number?", "documents": documents, "raw_scores": True}
    body = {**request, "partial": True, "cache": False}
    with serving("--self-check", "off", "--batch-tokens", "512", "--timeout-ms", "250") as server:
        url = f"{server.url}/v1/rerank"
        whole = httpx.post(url, json=body | {"timeout_ms": 300_000}, timeout=300).json()
        part = httpx.post(url, json=body, timeout=60)
        for timeout_ms in (500, 1000, 2000, 4000):
            if part.status_code == 200:
                break
            assert part.json()["message"] == "scored 0 of 300 documents in time"
            part = httpx.post(url, json=body | {"timeout_ms": timeout_ms}, timeout=60)
        after = httpx.post(url, json={"query": "q", "documents": ["d"], "timeout_ms": 60_000})

    assert "not_scored" not in whole["meta"]
    scores = {result["index"]: result["relevance_score"] for result in whole["results"]}
    some = {result["index"]: result["relevance_score"] for result in part.json()["results"]}
    missing = part.json()["meta"]["not_scored"]
    assert 0 < len(some) < 300
    assert sorted([*some, *missing]) == list(range(300))
    assert some == pytest.approx({index: scores[index] for index in some}, abs=1e-4)
    assert after.status_code == 200


def test_documents_of_a_disconnected_client_are_counted_as_abandoned() -> None:
    documents = [f"document {number} " + "and so on " * 200 for number in range(400)]
    body = json.dumps({"query": "q", "documents": documents}).encode()
    with serving("--self-check", "off", "--batch-tokens", "512") as server:
        metrics = f"{server.url}/metrics"
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(
                b"POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s"
                % (len(body), body)
            )
            while not _samples(metrics)["rankd_waiting_tokens"]:
                time.sleep(0.05)
            time.sleep(0.5)  # It is admitted, and the engine has begun.
        counts = _counts_after_abandonment(metrics)

    assert counts['rankd_abandoned_requests_total{reason="client"}'] == 1
    assert 0 < counts["rankd_abandoned_documents_total"] < 400


def _counts_after_abandonment(url: str) -> dict[str, float]:
    """All samples of /metrics, once it counts an abandoned request."""
    for _ in range(100):
        counts = _samples(url)
        names = [name for name in counts if name.startswith("rankd_abandoned_requests_total{")]
        if any(counts[name] for name in names):
            return counts
        time.sleep(0.1)
    raise AssertionError("no request was ever abandoned")


def _samples(url: str) -> dict[str, float]:
    lines = [line for line in get(url).text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}
