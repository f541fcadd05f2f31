"""What dialects of hosted APIs do beyond their schema: DeepInfra, ZeroEntropy, Bedrock, Google."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rankd.config.settings import Settings
from rankd.dialects import json_io
from rankd.dialects.base import Dialect
from rankd.dialects.bedrock import dialect as bedrock
from rankd.dialects.resolved import RequestContext
from rankd.dialects.zeroentropy import dialect as zeroentropy
from rankd.types import BACKGROUND_PRIORITY, RankRequest
from support.calling import calling

QUERY = "What is the capital of China?"
TEXTS = ["Lions hunt at night.", "The capital of China is Beijing.", "Blue whales sing."]
NDJSON = {"accept": "application/x-ndjson"}
ALIAS: dict[str, Any] = {"score_threshold": 0.0}


def post(client: TestClient, path: str, body: dict[str, Any], **headers: str) -> Any:
    reply = client.post(path, json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    return reply.json()


def ranked(dialect: Dialect, body: dict[str, Any], **context: Any) -> RankRequest:
    """What a body asks to rank."""
    request = json_io.validate(dialect.Request, body)
    return request.resolve(RequestContext(**context)).rank


# DeepInfra.


@pytest.mark.parametrize(
    "queries",
    [[QUERY], [QUERY] * 3, [QUERY, QUERY, "whales"], [QUERY, "lions", QUERY], ["a", "b", "c"]],
)
def test_deepinfra_scores_each_document_with_its_query(
    client: TestClient, queries: list[str]
) -> None:
    body = {"queries": queries, "documents": TEXTS}

    reply = client.post("/v1/inference/Qwen/Qwen3-Reranker-8B", json=body)
    scored = client.post("/v1/score", json=body)

    assert reply.status_code == 200, reply.text
    answer = reply.json()
    assert answer["scores"] == [one["score"] for one in scored.json()["data"]]
    assert answer["input_tokens"] == scored.json()["usage"]["prompt_tokens"]
    assert reply.headers["x-rankd-usage"] == scored.headers["x-rankd-usage"]


def test_deepinfra_names_a_cut_document_by_its_place_in_the_request(client: TestClient) -> None:
    documents = [TEXTS[0], TEXTS[1], "word " * 9_000]
    body = {"queries": [QUERY, "lions", "words"], "documents": documents}

    reply = client.post("/deepinfra/v1/inference/some/model", json=body)

    assert reply.status_code == 200, reply.text
    assert reply.headers["x-rankd-warnings"].startswith("document 2 was cut from")


def test_deepinfra_streams_the_scores_of_one_query_only(client: TestClient) -> None:
    path = "/v1/inference/some/model"
    one = client.post(path, json={"queries": [QUERY] * 3, "documents": TEXTS}, headers=NDJSON)
    three = {"queries": ["a", "b", "c"], "documents": TEXTS}
    refused = client.post(path, json=three, headers=NDJSON)

    *lines, last = map(json.loads, one.text.splitlines())
    by_index = {line["index"]: line["relevance_score"] for line in lines}
    assert [by_index[index] for index in range(3)] == last["scores"]
    assert refused.status_code == 400
    assert "the queries differ" in refused.json()["detail"]["error"]


@pytest.mark.parametrize("path", ["/inference/m", "/v1/inference/m", "/v1/inference/a/b/c"])
def test_deepinfras_model_is_in_the_path(path: str) -> None:
    body = {"queries": [QUERY], "documents": TEXTS}
    with calling(Settings(engine="fake", strict_model=True, aliases={"a/b/c": ALIAS})) as strict:
        reply = strict.post(path, json=body)

    assert reply.status_code == (200 if path.endswith("a/b/c") else 404)


# ZeroEntropy.


@pytest.mark.parametrize(
    ("fields", "background", "priority"),
    [
        ({}, False, 0),
        ({"latency": "fast"}, False, 0),
        ({"latency": "slow"}, False, 999),
        ({"latency": "slow", "priority": 0}, False, 0),
        ({"latency": "fast", "priority": 7}, False, 7),
        ({"latency": "slow"}, True, BACKGROUND_PRIORITY),
    ],
)
def test_zeroentropys_slow_requests_wait_behind_others(
    fields: dict[str, Any], background: bool, priority: int
) -> None:
    body = {"query": QUERY, "documents": TEXTS, **fields}

    assert ranked(zeroentropy, body, background=background).priority == priority


@pytest.mark.parametrize("path", ["/v1/models/rerank", "/models/rerank", "/zeroentropy/rerank"])
def test_zeroentropy_counts_bytes_and_repeats_the_latency(client: TestClient, path: str) -> None:
    body = {"query": "é", "documents": ["a", "中"], "latency": "slow"}

    answer = post(client, path, body)

    assert answer["total_bytes"] == (150 + 2 + 1) + (150 + 2 + 3)
    assert answer["actual_latency_mode"] == "slow"
    assert 0 <= answer["inference_latency"] <= answer["e2e_latency"]
    fast = post(client, path, body | {"latency": None})
    assert fast["actual_latency_mode"] == "fast"


# Bedrock.


def sources(*documents: Any) -> dict[str, Any]:
    """A request with texts, and JSON documents for what is not a text."""
    inner = [
        {"type": "TEXT", "textDocument": {"text": document}}
        if isinstance(document, str)
        else {"type": "JSON", "jsonDocument": document}
        for document in documents
    ]
    return {
        "queries": [{"type": "TEXT", "textQuery": {"text": QUERY}}],
        "sources": [{"type": "INLINE", "inlineDocumentSource": one} for one in inner],
    }


def configured(body: dict[str, Any], **model: Any) -> dict[str, Any]:
    inner = {"modelConfiguration": model}
    outer = {"type": "BEDROCK_RERANKING_MODEL", "bedrockRerankingConfiguration": inner}
    return body | {"rerankingConfiguration": outer}


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/invocations", "/bedrock/rerank"])
def test_bedrocks_body_is_told_at_every_path(client: TestClient, path: str) -> None:
    expected = post(client, "/v1/rerank", {"query": QUERY, "documents": TEXTS})["results"]

    answer = post(client, path, sources(*TEXTS))

    assert answer["results"] == [
        {"index": one["index"], "relevanceScore": one["relevance_score"]} for one in expected
    ]


def test_bedrocks_body_may_be_one_of_a_batch(client: TestClient) -> None:
    rows = post(client, "/v1/batch_rerank", {"requests": [sources(*TEXTS), sources("a")]})

    assert [len(row["body"]["results"]) for row in rows["results"]] == [3, 1]


def test_bedrock_reads_every_field_of_a_json_document() -> None:
    document = {"title": "Beijing", "text": "A city.", "tags": ["capital"]}

    [text] = ranked(bedrock, sources(document)).documents

    assert text == "title: Beijing\ntext: A city.\ntags:\n- capital"


@pytest.mark.parametrize(
    ("arn", "status"),
    [
        ("arn:aws:bedrock:us-west-2::foundation-model/served", 200),
        ("served", 200),
        ("arn:aws:bedrock:us-west-2::foundation-model/other", 404),
    ],
)
def test_bedrocks_model_is_what_follows_the_last_slash(arn: str, status: int) -> None:
    with calling(Settings(engine="fake", strict_model=True, aliases={"served": ALIAS})) as strict:
        reply = strict.post("/rerank", json=configured(sources("a"), modelArn=arn))

    assert reply.status_code == status


def test_bedrock_reads_rankds_fields_and_names_others(client: TestClient) -> None:
    fields = {"instruction": "Find duplicates.", "max_tokens_per_doc": 9, "colour": 1}
    body = configured(sources(*TEXTS), additionalModelRequestFields=fields)

    request = ranked(bedrock, body)
    reply = client.post("/rerank", json=body)

    assert (request.instruction, request.max_document_tokens) == ("Find duplicates.", 9)
    assert reply.headers["x-rankd-warnings"] == "unknown field 'colour' was ignored"


# Google.

RANK = "/v1/projects/p/locations/global/rankingConfigs/default_ranking_config:rank"


def test_google_reads_title_and_content_as_a_record(client: TestClient) -> None:
    records = [
        {"id": "a", "title": "Beijing", "content": "The capital of China."},
        {"id": "b", "content": TEXTS[1]},
        {"id": "c", "title": TEXTS[2], "content": ""},
    ]
    texts = ["title: Beijing\ncontent: The capital of China.", TEXTS[1], TEXTS[2]]
    expected = post(client, "/v1/rerank", {"query": QUERY, "documents": texts})["results"]

    answer = post(client, RANK, {"query": QUERY, "records": records})

    assert answer["records"] == [
        {**records[one["index"]], "score": one["relevance_score"]} for one in expected
    ]


def test_google_leaves_out_what_a_record_does_not_have(client: TestClient) -> None:
    records = [{"content": TEXTS[1]}, TEXTS[0]]

    whole = post(client, RANK, {"query": QUERY, "records": records})["records"]
    short = post(
        client, RANK, {"query": QUERY, "records": records, "ignoreRecordDetailsInResponse": True}
    )["records"]

    assert [one.keys() for one in whole] == [{"content", "score"}, {"score"}]
    assert [one.keys() for one in short] == [{"score"}, {"score"}]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/projects/p/locations/global/rankingConfigs/c:score",
        "/v1/projects/p/locations/global/rankingConfigs/c",
        "/v2/projects/p:rank",
    ],
)
def test_google_has_no_other_method(client: TestClient, path: str) -> None:
    assert client.post(path, json={"query": QUERY, "records": TEXTS}).status_code == 404


# OpenRouter and Ollama.


def test_openrouters_preferences_tell_its_body(client: TestClient) -> None:
    body = {"query": QUERY, "documents": TEXTS}

    its_own = post(client, "/v1/rerank", body | {"provider": {"order": ["x"]}})
    other = client.post("/v1/rerank", json=body | {"provider": "x"})

    assert its_own.keys() == {"id", "model", "results", "usage"}
    assert "meta" in other.json()
    assert other.headers["x-rankd-warnings"] == "unknown field 'provider' was ignored"


def test_ollamas_path_needs_no_prefix(client: TestClient) -> None:
    reply = client.post("/api/rerank", json={"query": QUERY, "documents": TEXTS, "top_n": 1})

    assert "x-rankd-warnings" not in reply.headers
    assert reply.json()["results"][0]["document"] == TEXTS[1]


# Keys.


@pytest.fixture(scope="module")
def guarded() -> Iterator[TestClient]:
    with calling(Settings(engine="fake", api_keys=["sesame"])) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/inference/m", "detail"),
        ("/v1/models/rerank", "detail"),
        (RANK, "error"),
        ("/api/rerank", "error"),
        ("/bedrock/rerank", "__type"),
        ("/openrouter/v1/rerank", "error"),
    ],
)
def test_their_paths_need_a_key(guarded: TestClient, path: str, field: str) -> None:
    """The body is not read by then, so an empty one will do."""
    refused = guarded.post(path, json={})
    read = guarded.post(path, json={}, headers={"authorization": "Bearer sesame"})

    assert (refused.status_code, read.status_code) == (401, 400)
    assert field in refused.json()
    assert refused.json().keys() == read.json().keys()


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
def test_a_signed_request_gets_awss_401_on_a_shared_path(guarded: TestClient, path: str) -> None:
    credential = "Credential=wrong/20261130/us-east-1/bedrock/aws4_request"
    header = f"AWS4-HMAC-SHA256 {credential}, SignedHeaders=host, Signature=00"

    signed = guarded.post(path, json=sources("a"), headers={"authorization": header})
    other = guarded.post(path, json=sources("a"), headers={"authorization": "Bearer wrong"})

    assert (signed.status_code, other.status_code) == (401, 401)
    assert signed.json()["__type"] == "AccessDeniedException"
    assert "access key id of the AWS signature is not a known key" in signed.json()["message"]
    assert "wrong" not in signed.text
    assert "__type" not in other.json()
