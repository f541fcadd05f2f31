"""`/v1/batch_rerank`: each part is answered or refused as if it had been sent alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from rankd.config.settings import Settings
from rankd.server.app import open_app
from rankd.types import Prompt, RankRequest, RankResult

Json = dict[str, Any]

PATH = "/v1/batch_rerank"
DOCUMENTS = ["Gravity attracts two bodies.", "The capital of China is Beijing."]
GOOD: Json = {"query": "What is the capital of China?", "documents": DOCUMENTS}


def post(client: TestClient, path: str = PATH, **body: Any) -> list[Json]:
    reply = client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    results: list[Json] = reply.json()["results"]
    assert [result["index"] for result in results] == list(range(len(results)))
    return results


def without_id(answer: Any) -> Any:
    return {name: value for name, value in answer.items() if name not in ("id", "created")}


def test_a_part_gets_the_answer_that_it_would_get_alone(client: TestClient) -> None:
    parts = [GOOD, {**GOOD, "query": "What is gravity?", "top_n": 1, "nonsense": 1}]

    answers = post(client, requests=parts)

    assert [answer["status_code"] for answer in answers] == [200, 200]
    for part, answer in zip(parts, answers, strict=True):
        alone = client.post("/v1/rerank", json=part).json()
        assert without_id(answer["body"]) == without_id(alone)


def test_each_part_may_be_in_another_dialect_and_fails_in_its_format(client: TestClient) -> None:
    tei = {"query": "q", "texts": DOCUMENTS}
    voyage = {"query": "q", "documents": DOCUMENTS, "top_k": 1}
    parts = [tei, voyage, {**tei, "query": ""}, {**GOOD, "query": ""}]

    answers = post(client, requests=parts)

    assert [answer["status_code"] for answer in answers] == [200, 200, 400, 400]
    assert {"index", "score"} <= answers[0]["body"][0].keys()
    assert len(answers[1]["body"]["data"]) == 1
    assert isinstance(answers[2]["body"]["error"], str)
    assert answers[3]["body"]["error"]["param"] == "query"


def test_a_part_that_fails_does_not_affect_the_others(client: TestClient) -> None:
    too_many = {"query": "q", "documents": ["d"] * 21}
    parts = [7, GOOD, {}, too_many, {**GOOD, "documents": []}, GOOD]

    answers = post(client, requests=parts)

    assert [answer["status_code"] for answer in answers] == [400, 200, 400, 413, 400, 200]
    assert answers[1]["body"]["results"] == answers[5]["body"]["results"]
    assert answers[0]["body"]["error"]["message"] == "a request must be an object, not a number (7)"


def test_other_fields_are_defaults_for_all_requests(client: TestClient) -> None:
    answers = post(
        client,
        requests=[{"query": "a"}, {"query": "b", "top_n": 2}],
        documents=DOCUMENTS,
        top_n=1,
        return_documents=False,
    )

    assert [len(answer["body"]["results"]) for answer in answers] == [1, 2]
    assert "document" not in answers[0]["body"]["results"][0]


def test_queries_are_short_for_requests(client: TestClient) -> None:
    short = post(client, queries=["a", {"text": "b"}, ""], documents=DOCUMENTS)
    long = post(client, requests=[{"query": "a"}, {"query": "b"}], documents=DOCUMENTS)

    assert [answer["status_code"] for answer in short] == [200, 200, 400]
    for shortened, written_out in zip(short, long, strict=False):
        assert shortened["body"]["results"] == written_out["body"]["results"]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 400, "either requests or queries"),
        ({"requests": [GOOD], "queries": ["q"]}, 400, "either"),
        ({"requests": []}, 400, "must not be empty"),
        ({"requests": GOOD}, 400, "must be an array"),
        ({"requests": [GOOD] * 21}, 413, "the limit is 20"),
        ({"requests": [GOOD] * 11}, 413, "22 documents or more in 11 requests"),
    ],
)
def test_an_error_of_the_frame_refuses_the_whole_request(
    body: Json, status: int, message: str, client: TestClient
) -> None:
    reply = client.post(PATH, json=body)

    assert reply.status_code == status
    assert message in reply.json()["error"]["message"]


def test_other_dialects_have_their_own_batch_path_or_none(client: TestClient) -> None:
    reply = client.post(f"/simple{PATH}", json={"queries": ["q"], "documents": [DOCUMENTS]})

    assert reply.json()["results"][0]["scores"]
    assert client.post(f"/voyage{PATH}", json={"requests": [GOOD]}).status_code == 404
    assert post(client, f"/openai{PATH}", requests=[GOOD])[0]["status_code"] == 200


async def post_to_app(settings: Settings, body: Json, prepare: Any = None) -> list[Json]:
    async with open_app(settings) as app:
        if prepare is not None:
            prepare(app.state.service)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://rankd") as client:
            reply = await client.post(PATH, json=body)
    assert reply.status_code == 200, reply.text
    return list(json.loads(reply.content)["results"])


def slow_down(service: Any) -> None:
    """Let calls of the engine overlap, as they do with a real one."""
    score = service.ranker.scheduler.score

    async def slow(prompts: Sequence[Prompt], **options: Any) -> list[float]:
        await asyncio.sleep(0.05)
        return list(await score(prompts, **options))

    service.ranker.scheduler.score = slow


@pytest.mark.anyio
async def test_each_part_is_admitted_by_itself() -> None:
    settings = Settings(engine="fake", max_waiting_requests=2, cache_mb=0)

    answers = await post_to_app(settings, {"requests": [GOOD] * 5}, slow_down)

    assert [answer["status_code"] for answer in answers] == [200, 200, 429, 429, 429]
    assert all(answer["retry_after"] >= 1 for answer in answers[2:])
    assert all("retry_after" not in answer for answer in answers[:2])


@pytest.mark.anyio
async def test_a_key_with_limited_concurrency_gets_all_its_parts() -> None:
    settings = Settings(engine="fake", key_concurrency=2, cache_mb=0)

    answers = await post_to_app(settings, {"requests": [GOOD] * 9}, slow_down)

    assert [answer["status_code"] for answer in answers] == [200] * 9


@pytest.mark.anyio
async def test_a_bug_in_one_part_does_not_affect_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def break_a_query(service: Any) -> None:
        rank_measured = service.ranker.rank_measured

        async def broken(requests: Sequence[RankRequest], *options: Any) -> RankResult:
            if requests[0].query == "break":
                raise ZeroDivisionError("a secret document")
            result: RankResult = await rank_measured(requests)
            return result

        service.ranker.rank_measured = broken

    body = {"requests": [GOOD, {**GOOD, "query": "break"}, GOOD]}
    answers = await post_to_app(Settings(engine="fake"), body, break_a_query)

    assert [answer["status_code"] for answer in answers] == [200, 500, 200]
    assert "ZeroDivisionError" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.anyio
async def test_a_deadline_of_one_part_does_not_affect_the_others() -> None:
    slow = {"query": "q", "documents": ["word " * 3000] * 900, "timeout_ms": 1}

    answers = await post_to_app(Settings(engine="fake"), {"requests": [slow, GOOD]})

    assert [answer["status_code"] for answer in answers] == [504, 200]
