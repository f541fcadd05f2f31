"""What an alias says about documents that do not fit, and what overrides it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from support.scoring_endpoints import ENDPOINTS, Json, numbers, opened

LONG = " ".join(f"word{number}" for number in range(60))


ALIASES: dict[str, Json] = {
    "refusing": {"truncation": "refuse", "max_tokens_per_doc": 20},
    "left": {"truncation_side": "left", "max_tokens_per_doc": 20},
    "chunked": {"truncation": "chunk", "max_tokens_per_doc": 20, "max_chunks_per_doc": 3},
    "overlapping": {"truncation": "chunk", "max_tokens_per_doc": 20, "overlap_tokens": 7},
}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with opened(aliases=ALIASES) as app:
        yield app


def post(client: TestClient, path: str, body: Json, **fields: Any) -> Any:
    reply = client.post(path, json=body | fields)
    return reply.status_code, reply.headers.get("x-rankd-warnings"), numbers(reply.json())


BODY: Json = {"query": "word59", "documents": [LONG]}


def test_an_alias_decides_what_happens_to_long_documents(client: TestClient) -> None:
    status, _, _ = post(client, "/v1/rerank", BODY, model="refusing")
    _, cut, right = post(client, "/v1/rerank", BODY, max_tokens_per_doc=20)
    _, left_cut, left = post(client, "/v1/rerank", BODY, model="left")
    _, chunk_cut, chunked = post(client, "/v1/rerank", BODY, model="chunked")
    explicit = post(client, "/v1/rerank", BODY, max_tokens_per_doc=20, max_chunks_per_doc=3)

    assert status == 400
    assert cut.endswith("to 20 tokens")
    assert left_cut.endswith("to 20 tokens")
    assert left > right  # The word of the query is at the end.
    assert chunk_cut.endswith("to 60 tokens")
    assert (200, chunk_cut, chunked) == explicit


BEDROCK_SIZE = {
    "rerankingConfiguration": {
        "bedrockRerankingConfiguration": {
            "modelConfiguration": {"additionalModelRequestFields": {"max_tokens_per_doc": 1000}}
        }
    }
}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/rerank", {"max_chunks_per_doc": 1}),
        ("/v1/score", {"max_tokens_per_doc": 1000}),
        ("/tei/rerank", {"truncate": True}),
        ("/voyage/v1/rerank", {"truncation": True}),
        ("/nim/v1/ranking", {"truncate": "END"}),
        ("/jina/v1/rerank", {"truncation": True}),
        ("/pinecone/rerank", {"parameters": {"truncate": "END"}}),
        ("/cohere/v1/rerank", {"max_chunks_per_doc": 2}),
        ("/bedrock/rerank", BEDROCK_SIZE),
    ],
)
def test_fields_of_a_request_override_its_alias(
    client: TestClient, path: str, fields: Json
) -> None:
    names = {"/tei/rerank": "texts", "/nim/v1/ranking": "passages", "/bedrock/rerank": "sources"}
    query = "text_1" if "score" in path else "query"
    texts = "text_2" if "score" in path else names.get(path, "documents")
    body: Json = {query: "word59", texts: [LONG], "model": "refusing"}
    if texts == "sources":
        body["queries"] = [body.pop("query")]

    assert post(client, path, body)[0] == 400
    assert post(client, path, body, **fields)[0] == 200


# Fields about long documents in the dialects' own examples.
FIELDS = (
    *("max_tokens_per_doc", "max_chunks_per_doc", "overlap_tokens", "truncate", "truncation"),
    *("truncation_direction", "raw_scores"),
)
PLAIN = [
    (path, {name: body[name] for name in body if name not in FIELDS}) for path, body in ENDPOINTS
]


def of_one_long(body: Json) -> Json:
    """A body with one query, and with one document that does not fit."""
    return {name: _of_one_long(name, value) for name, value in body.items()}


def _of_one_long(name: str, value: Any) -> Any:
    match name, value:
        case "query", {"text": _}:
            return {"text": "word59"}
        case "query" | "queries" | "text_1", _:
            return ["word59"] if isinstance(value, list) else "word59"
        case "input", dict():
            return of_one_long(value) if "query" in value else value
        case _, [[*_]]:
            return [[LONG]]
        case _, [str(), *_]:
            return [LONG]
        case _, [dict(), *_]:
            return [{"text": LONG}]
    return value


each_endpoint = pytest.mark.parametrize(
    ("path", "body"), PLAIN, ids=[f"{index}{path}" for index, (path, _) in enumerate(PLAIN)]
)


@each_endpoint
@pytest.mark.parametrize("alias", ["refusing", "left", "chunked", "overlapping"])
def test_an_alias_applies_in_every_dialect_unless_the_request_overrides_it(
    client: TestClient, path: str, body: Json, alias: str
) -> None:
    reply = client.post(path, json=of_one_long(body) | {"model": alias})
    explicit = client.post("/v1/rerank", json=BODY | ALIASES[alias])

    assert reply.status_code == explicit.status_code == (400 if alias == "refusing" else 200)
    assert reply.headers.get("x-rankd-usage") == explicit.headers.get("x-rankd-usage")
    warnings = reply.headers.get("x-rankd-warnings", "").removeprefix("query 0: ")
    assert warnings == explicit.headers.get("x-rankd-warnings", "")


def test_a_field_that_a_dialect_does_not_know_overrides_nothing(client: TestClient) -> None:
    for more in ({"truncation": "cut"}, {"max_tokens_per_doc": 900}, {"max_doc_length": 900}):
        status, _, _ = post(client, "/infinity/v1/rerank", BODY, model="refusing", **more)
        assert status == 400
