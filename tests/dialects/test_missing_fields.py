"""A 400 for a missing field names the unknown fields that were sent instead."""

from __future__ import annotations

import time
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rankd.dialects import json_io, openai
from rankd.errors import InvalidRequest
from support.yardstick import scaled


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        (
            "/v1/rerank",
            {"query": "q", "docs": ["a"]},
            "documents is missing; 'docs' is not known: did you mean documents?",
        ),
        (
            "/v1/rerank",
            {"question": "q", "documents": ["a"]},
            "query is missing; 'question' is not known: did you mean query?",
        ),
        (
            "/v1/rerank",
            {"Query": "q", "documents": ["a"]},
            "query is missing; 'Query' is not known: did you mean query?",
        ),
        (
            "/v1/rerank",
            {"qeury": "q", "documents": ["a"], "temperature": 1},
            "query is missing; 'qeury' is not known: did you mean query?",
        ),
        (
            "/tei/rerank",
            {"query": "q", "documents": ["a"]},
            "texts is missing; 'documents' is not known: did you mean texts?",
        ),
        (
            "/nim/rerank",
            {"query": {"text": "q"}, "texts": ["a"]},
            "passages is missing; 'texts' is not known: did you mean passages?",
        ),
        (
            "/weaviate/rerank",
            {"query": "q", "docs": ["a"]},
            "documents is missing; 'docs' is not known: did you mean documents?",
        ),
        (
            "/v1/rerank",
            {"input": {"query": "q", "docs": ["a"]}},
            "input.documents is missing; 'docs' is not known: did you mean documents?",
        ),
        (
            "/v1/rerank",
            {"query": "q", "temperature": 1, "stream": True},
            "documents is missing; 'temperature', 'stream' are not known",
        ),
        ("/v1/rerank", {"query": "q", "top_n": 1, "user": "u"}, "documents is missing"),
        ("/v1/rerank", {"x" * 90: 1}, f"query is missing; '{'x' * 57}...' is not known"),
    ],
)
def test_a_missing_field_is_explained_by_the_unknown_ones(
    client: TestClient, path: str, body: dict[str, Any], message: str
) -> None:
    reply = client.post(path, json=body)

    assert reply.status_code == 400
    assert reply.json()["message"] == message


def test_many_unknown_fields_take_little_time_and_space() -> None:
    body = {f"{'x' * 1000} {index}": index for index in range(10_000)}
    began = time.process_time()
    with pytest.raises(InvalidRequest) as refused:
        json_io.validate(openai.dialect.Request, body)

    assert time.process_time() - began < scaled(1)
    assert refused.value.message.startswith("query is missing; 'xxx")
    assert len(refused.value.message) < 1_000
