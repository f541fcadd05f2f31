"""Requests of applications that are not run here, replayed byte for byte.

Each file of `wire/` has the requests of one application, taken from its source, with the headers
it sets itself. The application's reader in `readers/` parses the answer as the application does.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from readers import ERROR_READERS, READERS, Exchange, Scores, query_and_documents

from rankd.config.settings import Settings
from support.calling import calling

WIRES = {path.stem: path for path in sorted((Path(__file__).parent / "wire").glob("*.json"))}

# Applications that no server can serve at that path, with what to use instead.
CONFLICTS = {
    "milvus-sglang": "requires an array where all others require an object, for the same body "
    "on the same path; Milvus' providers tei and vllm work",
}

# Applications that use a vendor's API, by a part of their name: they work under its prefix too.
PREFIXES = {
    "cohere": "cohere",
    "jina": "jina",
    "librechat": "jina",
    "voyage": "voyage",
    "nvidia": "nim",
    "tongyi": "dashscope",
    "dashscope": "dashscope",
    "xinference": "xinference",
    "siliconflow": "siliconflow",
    "siliconcloud": "siliconflow",
    "vllm": "vllm",
    "tei": "tei",
    "huggingface": "tei",
    "transformers": "weaviate",
    "sglang": "sglang",
}

KEY = "not-a-real-key"  # The key in the recorded requests that have one.


def requests(name: str) -> list[dict[str, Any]]:
    recorded: list[dict[str, Any]] = json.loads(WIRES[name].read_text(encoding="utf-8"))["requests"]
    return recorded


@pytest.fixture(scope="module")
def guarded() -> Iterator[TestClient]:
    """The same server, but it requires a key."""
    settings = Settings(engine="fake", max_documents=20, api_keys=(KEY,))
    with calling(settings) as client:
        yield client


def test_every_application_has_a_reader() -> None:
    assert set(READERS) == set(WIRES)
    assert set(ERROR_READERS) <= set(WIRES)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=pytest.mark.xfail(reason=CONFLICTS[name], strict=True)
            if name in CONFLICTS
            else (),
        )
        for name in WIRES
    ],
)
def test_an_application_reads_the_right_scores(client: TestClient, name: str) -> None:
    exchanges = [send(client, request) for request in requests(name)]

    scores = READERS[name](exchanges)

    assert scores == pytest.approx(expected_scores(client, exchanges[-1].request))


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        (name, prefix)
        for name in WIRES
        for vendor, prefix in PREFIXES.items()
        if vendor in name and not requests(name)[-1]["path"].startswith(f"/{prefix}/")
    ],
)
def test_an_application_reads_the_right_scores_under_its_vendors_prefix(
    client: TestClient, name: str, prefix: str
) -> None:
    exchanges = [
        send(client, {**request, "path": f"/{prefix}{request['path']}"})
        for request in requests(name)
    ]

    scores = READERS[name](exchanges)

    assert scores == pytest.approx(expected_scores(client, exchanges[-1].request))


@pytest.mark.parametrize("name", sorted(ERROR_READERS))
def test_an_application_shows_why_its_request_was_refused(client: TestClient, name: str) -> None:
    request = requests(name)[-1]
    body = json.loads(text_of(request))

    refused = send(client, {**request, "body_text": json.dumps({**body, "query": ""})})

    assert refused.status == 400
    assert "query" in ERROR_READERS[name](refused)


@pytest.mark.parametrize("name", WIRES)
def test_an_application_is_admitted_with_the_key_it_sends(guarded: TestClient, name: str) -> None:
    """Applications without a field for a key send it in the URL: `http://any:KEY@host`."""
    basic = "Basic " + base64.b64encode(f"any:{KEY}".encode()).decode()

    for request in requests(name):
        headers = {header.lower(): value for header, value in request["headers"].items()}
        if request["method"] == "POST" and not (headers.keys() & {"api-key", "authorization"}):
            headers["authorization"] = basic
        exchange = send(guarded, {**request, "headers": headers})
        if headers.get("authorization") == "":  # Dify, if its user entered no key.
            assert exchange.status == 401
        else:
            assert exchange.status in (200, 204), exchange.text


def test_no_two_documents_of_the_example_have_the_same_score(client: TestClient) -> None:
    scores = expected_scores(client, json.loads(text_of(requests("fastgpt")[-1])))

    assert len(set(scores.values())) == len(scores)


def send(client: TestClient, request: dict[str, Any]) -> Exchange:
    text = text_of(request)
    reply = client.request(
        request["method"], request["path"], headers=request["headers"], content=text.encode()
    )
    return Exchange(json.loads(text) if text else None, reply.status_code, reply.text)


def text_of(request: dict[str, Any]) -> str:
    """The body as the application writes it; empty if there is none."""
    if "body_text" in request:
        return str(request["body_text"])
    return json.dumps(request["body"], ensure_ascii=False) if "body" in request else ""


def expected_scores(client: TestClient, body: dict[str, Any]) -> Scores:
    """Scores of the same query and documents from `/v1/rerank`, cut to the limit in `body`."""
    query, documents = query_and_documents(body)
    plain = {"query": query, "documents": documents, "raw_scores": "passages" in body}
    reply = client.post("/v1/rerank", content=json.dumps(plain).encode())
    assert reply.status_code == 200, reply.text
    results = reply.json()["results"]
    options = {**body, **body.get("parameters", {})}
    limit = options.get("top_n") or options.get("top_k")
    return {result["index"]: result["relevance_score"] for result in results[:limit]}
