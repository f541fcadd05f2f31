"""Deadlines: how they are said, from when they count, and what is answered when they pass."""

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
from support.dialects import example, home
from support.servers import get, serving
from support.slow_engine import Slow

# Their scores have no index, so that none can be missing.
WHOLE = (Weaviate, Simple)

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
    """The whole app over an engine that has so many prompts ready in time."""
    engine = Slow(ready)
    service = ModelService(
        Ranker(encoder, engine, max_documents=100),
        "slow",
        timeout_ms=settings.pop("timeout_ms", 0),
    )
    app = build(service, Settings(engine="fake", max_documents=100, access_log=False), KeyRing())
    yield TestClient(app, raise_server_exceptions=False), engine


def listed(answer: Any) -> list[Any]:
    """The results of an answer, whatever the dialect calls them."""
    if isinstance(answer, list):
        return answer
    for name in ("results", "data", "rankings", "rerank"):
        if name in answer:
            return list(answer[name])
    return list(answer["output"]["results"])


def ask(count: int, **more: Any) -> dict[str, Any]:
    documents = [f"the capital of country {place}" for place in range(count)]
    return {"query": "the capital", "documents": documents, "timeout_ms": 50, **more}


# What is answered.


@each_dialect
def test_a_deadline_without_partial_is_a_504_that_says_what_was_done(
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
def test_a_partial_answer_holds_what_is_ready_and_names_the_rest(
    encoder: PromptEncoder, dialect: Dialect
) -> None:
    # A partial answer may still be cut to the best few.
    body = {key: value for key, value in example(dialect).items() if key not in ("top_n", "top_k")}
    body |= {"timeout_ms": 50, "partial": True}
    with slow(encoder, ready=1) as (client, _):
        reply = client.post(home(dialect), json=body)

    if isinstance(dialect, WHOLE):
        assert reply.status_code == 504
        assert reply.json()["message"].startswith("scored 1 of ")
        return
    assert reply.status_code == 200, reply.text
    TypeAdapter(dialect.response).validate_python(reply.json())
    assert [result["index"] for result in listed(reply.json())] == [0]
    assert "documents were not scored in time: 1" in reply.headers["x-rankd-warnings"]


@each_dialect
def test_nothing_ready_is_a_504_in_any_case(encoder: PromptEncoder, dialect: Dialect) -> None:
    body = example(dialect) | {"timeout_ms": 50, "partial": True}
    with slow(encoder, ready=0) as (client, _):
        reply = client.post(home(dialect), json=body)

    assert reply.status_code == 504
    assert reply.json()["message"].startswith("scored 0 of ")


@each_dialect
def test_partial_changes_nothing_in_time(encoder: PromptEncoder, dialect: Dialect) -> None:
    body = example(dialect) | {"partial": True}
    with slow(encoder, ready=100) as (client, _):
        reply = client.post(home(dialect), json=body | {"timeout_ms": 60_000})
        calm = client.post(home(dialect), json=body)

    assert reply.status_code == calm.status_code == 200
    assert "x-rankd-warnings" not in reply.headers
    assert "not_scored" not in reply.text


def test_our_own_answer_lists_what_was_not_scored(encoder: PromptEncoder) -> None:
    with slow(encoder, ready=3) as (client, _):
        answer = client.post("/v1/rerank", json=ask(8, partial=True)).json()
        cut = client.post("/v1/rerank", json=ask(8, partial=True, top_n=2)).json()

    assert sorted(result["index"] for result in answer["results"]) == [0, 1, 2]
    assert answer["meta"]["not_scored"] == [3, 4, 5, 6, 7]
    assert answer["meta"]["warnings"] == ["5 of 8 documents were not scored in time: 3-7"]
    assert len(cut["results"]) == 2
    assert cut["meta"]["not_scored"] == [3, 4, 5, 6, 7]


def test_what_is_counted_are_the_callers_documents(encoder: PromptEncoder) -> None:
    documents = ["one", "two", "one", "three", "one"]
    with slow(encoder, ready=1) as (client, _):
        late = client.post("/v1/rerank", json=ask(0, documents=documents))
        part = client.post("/v1/rerank", json=ask(0, documents=documents, partial=True))

    assert late.json()["message"] == "scored 3 of 5 documents in time"
    assert part.json()["meta"]["not_scored"] == [1, 3]
    assert part.json()["meta"]["warnings"] == ["2 of 5 documents were not scored in time: 1, 3"]


def test_a_document_of_which_a_piece_is_missing_is_not_scored(encoder: PromptEncoder) -> None:
    documents = ["short", "one two three four five six seven eight nine ten", "last"]
    body = ask(0, documents=documents, max_tokens_per_doc=4, max_chunks_per_doc=10, partial=True)
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
def test_scores_without_an_index_are_all_or_none(
    encoder: PromptEncoder, path: str, body: dict[str, Any]
) -> None:
    with slow(encoder, ready=2) as (client, _):
        reply = client.post(path, json=body | {"partial": True, "timeout_ms": 50})

    assert reply.status_code == 504
    assert reply.json()["message"] == "scored 2 of 3 documents in time"


def test_deadlines_that_pass_are_counted(encoder: PromptEncoder) -> None:
    def counted(client: TestClient) -> float:
        lines = client.get("/metrics").text.splitlines()
        name = 'rankd_abandoned_requests_total{reason="deadline"} '
        return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))

    with slow(encoder, ready=1) as (client, _):
        before = counted(client)
        client.post("/v1/rerank", json=ask(3))
        client.post("/v1/rerank", json=ask(3, partial=True))
        client.post("/v1/rerank", json=ask(1))

        assert counted(client) - before == 2


# How it is said.


@pytest.mark.parametrize(
    ("headers", "said", "default", "seconds"),
    [
        ({}, None, 0, None),
        ({}, 40_000, 0, 40),
        ({}, None, 30_000, 30),
        ({}, 40_000, 30_000, 40),  # A default, no limit.
        ({"X-Rankd-Timeout-Ms": "20000"}, None, 30_000, 20),
        ({"X-Rankd-Timeout-Ms": "20000"}, 40_000, 0, 20),
        ({"X-Rankd-Timeout-Ms": "40000"}, 20_000, 0, 20),
        ({"X-Rankd-Timeout-Ms": " 86400000 "}, None, 0, 86_400),
        ({"Prefer": "wait=10"}, None, 0, 10),
        ({"Prefer": 'respond-async, Wait = "10"; foo=bar'}, 20_000, 0, 10),
        ({"Prefer": "wait"}, None, 0, None),
        ({"Prefer": "wait=0"}, None, 0, None),
        ({"Prefer": "wait=soon"}, None, 0, None),
        ({"Prefer": "handling=strict; wait=10"}, None, 0, None),  # Another's parameter.
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
def test_the_smallest_that_is_said_counts_and_the_default_when_nothing_is(
    encoder: PromptEncoder,
    headers: dict[str, str],
    said: int | None,
    default: int,
    seconds: float | None,
) -> None:
    with slow(encoder, ready=100, timeout_ms=default) as (client, engine):
        body = {**ask(1), "timeout_ms": said}
        for path in ("/v1/rerank", "/weaviate/rerank"):
            reply = client.post(path, json=body, headers=headers)

            assert reply.status_code == 200, reply.text
            if seconds is None:
                assert engine.patience is None
            else:
                assert engine.patience is not None
                assert seconds - 5 < engine.patience <= seconds


@pytest.mark.parametrize("path", ["/v1/score", "/simple/batch_rerank"])
def test_the_header_holds_for_scores_and_batches(encoder: PromptEncoder, path: str) -> None:
    body = {"text_1": "q", "text_2": "d"}
    if "batch" in path:
        body = {"queries": ["q"], "documents": ["d"]}  # type: ignore[dict-item]
    with slow(encoder, ready=100) as (client, engine):
        client.post(path, json=body, headers={"X-Rankd-Timeout-Ms": "20000"})

    assert engine.patience is not None
    assert 15 < engine.patience <= 20


_LONG = ["9" * 400, "000000001" + "9" * 400]


@pytest.mark.parametrize("value", ["", "soon", "0", "-5", "1.5", "86400001", "٣", *_LONG])
def test_a_header_that_is_no_time_is_a_400(encoder: PromptEncoder, value: str) -> None:
    with slow(encoder, ready=100) as (client, _):
        reply = client.post(
            "/v1/rerank", json=ask(1), headers=[(b"x-rankd-timeout-ms", value.encode())]
        )

    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "x-rankd-timeout-ms"


def test_a_wrong_partial_is_a_400(encoder: PromptEncoder) -> None:
    with slow(encoder, ready=100) as (client, _):
        reply = client.post("/v1/rerank", json=ask(1, partial="perhaps"))

    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "partial"


# From when it counts.


class Sleepy(PromptEncoder):
    """An encoder that never comes to an end."""

    async def encode(self, asks: Sequence[RankRequest]) -> list[EncodedRequest]:
        await asyncio.sleep(60)
        return await super().encode(asks)


def test_the_deadline_holds_while_a_request_is_encoded(encoder: PromptEncoder) -> None:
    sleepy = Sleepy.__new__(Sleepy)
    sleepy.__dict__.update(encoder.__dict__)
    began = time.monotonic()
    with slow(sleepy, ready=100) as (client, _):
        reply = client.post("/v1/rerank", json=ask(3, partial=True))

    assert reply.status_code == 504
    assert reply.json()["message"] == "scored 0 of 3 documents in time"
    assert time.monotonic() - began < 30


def test_the_ranker_answers_a_partial_ask_by_itself(encoder: PromptEncoder) -> None:
    async def scene() -> tuple[list[int], str]:
        ranker = Ranker(encoder, Slow(ready=2), max_documents=10)
        soon = RankRequest("q", ("a", "b", "c"), deadline=time.monotonic() + 0.05, partial=True)
        some = await ranker.rank(soon)
        with pytest.raises(DeadlineExceeded) as late:
            await ranker.rank_all([replace(soon, partial=False), soon])
        return [scored_document.index for scored_document in some], late.value.message

    assert asyncio.run(scene()) == ([0, 1], "scored 4 of 6 documents in time")


def test_what_was_scored_in_time_is_not_scored_again(encoder: PromptEncoder) -> None:
    async def scene() -> tuple[list[bool], list[int]]:
        cache = ScoreCache([MemoryStore(1 << 20, ttl=60)])
        ranker = Ranker(encoder, Slow(ready=2), max_documents=10, cache=cache)
        soon = RankRequest("q", ("a", "b", "c"), deadline=time.monotonic() + 0.05, partial=True)
        await ranker.rank(soon)
        again = await ranker.rank(replace(soon, deadline=time.monotonic() + 30))
        return [scored_document.cached for scored_document in again], [
            scored_document.index for scored_document in again
        ]

    assert asyncio.run(scene()) == ([True, True, False], [0, 1, 2])


def test_a_body_that_dawdles_uses_up_its_own_time() -> None:
    body = json.dumps({"query": "q", "documents": ["d", "e"], "timeout_ms": 400}).encode()
    head = b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
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


def test_a_partial_answer_of_the_model_has_the_scores_of_the_whole_one() -> None:
    documents = [f"document {number} " + "and so on " * (number % 100) for number in range(300)]
    asked = {"query": "which number?", "documents": documents, "raw_scores": True}
    body = {**asked, "partial": True, "cache": False}
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


def test_documents_of_a_client_that_leaves_are_counted_out() -> None:
    documents = [f"document {number} " + "and so on " * 200 for number in range(400)]
    body = json.dumps({"query": "q", "documents": documents}).encode()
    with serving("--self-check", "off", "--batch-tokens", "512") as server:
        metrics = f"{server.url}/metrics"
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(
                b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
                % (len(body), body)
            )
            while not _shown(metrics)["rankd_waiting_tokens"]:
                time.sleep(0.05)
            time.sleep(0.5)  # It is encoded and priced; some of it is on its way.
        counts = _counts(metrics)

    assert counts['rankd_abandoned_requests_total{reason="client"}'] == 1
    assert 0 < counts["rankd_abandoned_documents_total"] < 400


def _counts(url: str) -> dict[str, float]:
    """What /metrics says, once it tells of an abandoned request."""
    for _ in range(100):
        counts = _shown(url)
        names = [name for name in counts if name.startswith("rankd_abandoned_requests_total{")]
        if any(counts[name] for name in names):
            return counts
        time.sleep(0.1)
    raise AssertionError("no request was ever abandoned")


def _shown(url: str) -> dict[str, float]:
    lines = [line for line in get(url).text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}
