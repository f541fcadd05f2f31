"""`/v1/batch_rerank`: pairs and arrays as tutorials send them, and what requests share."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from fastapi.testclient import TestClient

from rankd.config.settings import Settings
from support.calling import calling

Json = dict[str, Any]

PAIRS: list[Json] = [
    {"query": "What is the capital of China?", "documents": ["Beijing.", "Bread.", "China."]},
    {"query": "What is gravity?", "documents": ["A force.", "Bread."], "top_k": 1},
]

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def bounded() -> Iterator[TestClient]:
    settings = Settings(engine="fake", cache_mb=0, max_tokens=128, max_response_bytes=4 * MIB)
    with calling(settings) as client:
        yield client


@pytest.mark.parametrize("path", ["/batch_rerank", "/v1/batch_rerank"])
@pytest.mark.parametrize("body", [{"pairs": PAIRS}, PAIRS], ids=["pairs", "an array"])
def test_pairs_and_arrays_get_the_answer_of_the_tutorial(
    path: str, body: Any, client: TestClient
) -> None:
    reply = client.post(path, json=body)
    alone = [client.post("/simple/rerank", json=pair).json() for pair in PAIRS]

    assert reply.status_code == 200
    assert reply.json() == {"results": alone}
    assert len(alone[0]["scores"]) == 3
    assert len(alone[1]["ranked_documents"]) == 1


def test_an_array_may_begin_with_a_byte_order_mark(client: TestClient) -> None:
    reply = client.post("/batch_rerank", content=b"\xef\xbb\xbf" + orjson.dumps(PAIRS))

    assert reply.status_code == 200
    assert reply.json() == client.post("/batch_rerank", json=PAIRS).json()


def test_an_array_at_simple_batch_rerank_is_read_as_pairs(client: TestClient) -> None:
    pairs = [{**PAIRS[0], "documents": ["a" * 70_000, "b"]}, {"query": "q", "documents": ["d"]}]

    reply = client.post("/simple/batch_rerank", json=pairs)

    assert reply.status_code == 200
    assert reply.json() == client.post("/simple/batch_rerank", json={"pairs": pairs}).json()


@pytest.mark.parametrize("rest", [b',"model":"m"', b"}", b"x"])
def test_nothing_may_follow_an_array(client: TestClient, rest: bytes) -> None:
    reply = client.post("/batch_rerank", content=orjson.dumps(PAIRS) + rest)

    assert reply.status_code == 400
    assert "not valid JSON" in reply.json()["message"]


def test_pairs_that_name_a_model_are_requests(client: TestClient) -> None:
    pairs = [{**PAIRS[0], "model": "m"}, PAIRS[1]]
    expected = client.post("/v1/batch_rerank", json={"requests": pairs}).json()["results"]

    results = client.post("/v1/batch_rerank", json={"pairs": pairs}).json()["results"]

    assert [one["status_code"] for one in results] == [200, 200]
    assert [one["body"]["model"] for one in results[:1]] == ["m"]
    assert without_ids(results) == without_ids(expected)


def without_ids(results: list[Json]) -> list[Json]:
    return [{**one, "body": {**one["body"], "id": "", "meta": ""}} for one in results]


def test_a_pair_that_is_wrong_refuses_all_and_is_named(client: TestClient) -> None:
    reply = client.post("/batch_rerank", json={"pairs": [PAIRS[0], {"query": "q"}]})

    assert reply.status_code == 400
    assert reply.json()["message"] == "pairs[1]: documents is missing"


@pytest.mark.parametrize("fields", [["requests", "pairs"], ["pairs", "queries"]])
def test_two_names_for_the_requests_are_refused(fields: list[str], client: TestClient) -> None:
    reply = client.post("/batch_rerank", json=dict.fromkeys(fields, PAIRS))

    assert reply.status_code == 400
    assert " and ".join(fields) in reply.json()["message"]


def test_an_unknown_shared_field_is_named_once(client: TestClient) -> None:
    body = {
        "requests": [{"query": "a", "typo": 1}, {"query": "b"}],
        "documents": ["d"],
        "nonsense": 1,
    }

    reply = client.post("/v1/batch_rerank", json=body)

    warnings = reply.headers["x-rankd-warnings"]
    assert warnings.count("'nonsense'") == 1
    assert warnings == (
        "unknown field 'nonsense' was ignored; requests[0]: unknown field 'typo' was ignored"
    )


def test_shared_fields_of_every_dialect_are_known(client: TestClient) -> None:
    shared: list[Json] = [
        {"texts": ["a", "b"], "raw_scores": True},
        {"documents": ["a", "b"], "top_k": 1},
        {"passages": [{"text": "a"}], "truncate": "END"},
        {"documents": [{"a": "b"}], "rank_fields": ["a"]},
    ]
    for fields in shared:
        query: Any = {"text": "q"} if "passages" in fields else "q"
        reply = client.post("/v1/batch_rerank", json={**fields, "queries": [query]})

        assert reply.json()["results"][0]["status_code"] == 200, reply.text
        assert "x-rankd-warnings" not in reply.headers, fields


def test_answers_beyond_the_limit_are_refused_before_the_work(bounded: TestClient) -> None:
    body = {"queries": ["a", "b", "c"], "documents": ["word " * 400_000], "return_documents": True}

    reply = bounded.post("/v1/batch_rerank", json=body)
    without = bounded.post("/v1/batch_rerank", json={**body, "return_documents": False})

    assert reply.status_code == 413
    assert "4,000,000 bytes or more" not in reply.text
    assert "6,000,000 bytes or more" in reply.json()["message"]
    assert "4,194,304" in reply.json()["message"]
    assert '"return_documents": false' in reply.json()["message"]
    assert [one["status_code"] for one in without.json()["results"]] == [200] * 3


@pytest.mark.parametrize(
    "options", [{}, {"score_threshold": 0}, {"top_n": 1}], ids=["whole", "threshold", "best"]
)
def test_answers_that_turn_out_too_large_are_refused(options: Json, bounded: TestClient) -> None:
    # Every character takes six bytes; a threshold may leave out everything, the best may be short.
    long = "\x01" * 300_000
    documents = [long] if options != {"top_n": 1} else [long, long + "\x01"]
    body = {"queries": [f"{n}" for n in range(4)], "documents": documents, "return_documents": True}

    reply = bounded.post("/v1/batch_rerank", content=orjson.dumps({**body, **options}))

    assert reply.status_code == 413
    assert "the limit is 4,194,304" in reply.json()["message"]


@pytest.mark.parametrize(
    "path", ["/v1/rerank", "/cohere/v1/rerank", "/vllm/rerank", "/nim/v1/ranking"]
)
def test_one_answer_is_bounded_too(path: str, bounded: TestClient) -> None:
    text = "word " * 1_000_000
    body: Json = {"query": "q", "documents": [text], "return_documents": True}
    if "nim" in path:
        body = {"query": {"text": "q"}, "passages": [{"text": text}]}

    reply = bounded.post(path, json=body)

    assert reply.status_code == (200 if "nim" in path else 413), reply.text[:200]
    assert len(reply.content) < 4 * MIB


def test_the_batch_of_the_tutorial_is_bounded_too(bounded: TestClient) -> None:
    body = {"queries": ["a", "b", "c"], "documents": ["word " * 400_000]}

    assert bounded.post("/simple/batch_rerank", json=body).status_code == 413
    pairs = [{"query": query, "documents": body["documents"]} for query in "abc"]
    assert bounded.post("/batch_rerank", json={"pairs": pairs}).status_code == 413


def test_objects_that_many_requests_share_are_bounded(bounded: TestClient) -> None:
    records = [{"title": "word " * 40_000}]
    body = {"queries": ["q"] * 400, "documents": records, "return_documents": False}

    reply = bounded.post("/v1/batch_rerank", json=body)
    few = bounded.post("/v1/batch_rerank", json={**body, "queries": ["q"] * 4})

    assert reply.status_code == 413
    assert "400 requests read the same objects of 200," in reply.json()["message"]
    assert [one["status_code"] for one in few.json()["results"]] == [200] * 4


@pytest.mark.slow
def test_shared_texts_and_fields_are_stored_once(bounded: TestClient) -> None:
    unknown = {f"k{number}": 1 for number in range(9_000)}
    text = "word " * 400_000
    body = {"queries": ["q"] * 900, "documents": [text], "return_documents": False, **unknown}
    content = json.dumps(body).encode()
    bounded.post("/v1/batch_rerank", json={**body, "queries": ["q"], "documents": ["d"]})

    tracemalloc.start()
    try:
        reply = bounded.post("/v1/batch_rerank", content=content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert reply.status_code == 200
    assert len(reply.json()["results"]) == 900
    assert len(reply.content) < MIB
    # 900 times the text would be 1.8 GB, 900 times the names 500 MB.
    assert peak < 60 * MIB
