"""Options of vLLM 0.33 that change a score: done, or refused, on every path of vLLM's clients."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi.testclient import TestClient

QUERY = "capital of China"
END = "the capital of China is Beijing"
LONG = "nothing of interest here. " * 40 + END

PATHS = [
    *("/rerank", "/v1/rerank", "/v2/rerank", "/vllm/rerank", "/vllm/v1/rerank"),
    *("/vllm/v2/rerank", "/vllm/invocations", "/score", "/v1/score", "/vllm/score"),
]


def post(client: TestClient, path: str, **options: Any) -> Any:
    names = ("text_1", "text_2") if path.endswith("score") else ("query", "documents")
    texts = {names[0]: options.pop("query", QUERY), names[1]: options.pop("documents", [LONG])}
    return client.post(path, json={**texts, **options})


def score(client: TestClient, path: str, **options: Any) -> float:
    reply = post(client, path, **options)
    assert reply.status_code == 200, reply.text
    answer = reply.json()
    if path.endswith("score"):
        return float(answer["data"][0]["score"])
    return float(answer["results"][0]["relevance_score"])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "limit", [{"max_tokens_per_doc": 12}, {"truncate_prompt_tokens": 120}], ids=str
)
def test_truncation_side_decides_which_end_is_read(
    client: TestClient, path: str, limit: dict[str, int]
) -> None:
    right, left = (score(client, path, truncation_side=side, **limit) for side in ("right", "left"))

    assert right == score(client, path, **limit)
    assert left > right + 0.1


@pytest.mark.parametrize("path", PATHS)
def test_a_prompt_has_truncate_prompt_tokens_at_most(client: TestClient, path: str) -> None:
    """The template and the query stay whole, so the document gives way: not as in vLLM."""
    whole = post(client, path).json()["usage"]["prompt_tokens"]
    cut = post(client, path, max_tokens_per_doc=20).json()["usage"]["prompt_tokens"]
    reply = post(client, path, truncate_prompt_tokens=cut)

    assert reply.json()["usage"]["prompt_tokens"] == cut < whole - 100
    assert reply.headers["x-rankd-warnings"].endswith(" to 20 tokens")
    assert score(client, path, truncate_prompt_tokens=cut) == score(
        client, path, max_tokens_per_doc=20
    )
    for limit in (-1, 10**6, None):
        assert score(client, path, truncate_prompt_tokens=limit) == score(client, path)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("limit", [0, 20])
def test_a_prompt_too_short_for_the_query_is_refused(
    client: TestClient, path: str, limit: int
) -> None:
    reply = post(client, path, truncate_prompt_tokens=limit)

    assert reply.status_code == 400
    assert f"truncate_prompt_tokens is {limit}, with the document" in reply.json()["message"]


@pytest.mark.parametrize("path", PATHS)
def test_a_query_over_max_tokens_per_query_is_refused_with_both_numbers(
    client: TestClient, path: str
) -> None:
    query = "word " * 30

    reply = post(client, path, query=query, max_tokens_per_query=20)

    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "max_tokens_per_query"
    assert re.match(
        r"the query takes 3\d tokens and max_tokens_per_query is 20; queries are never cut",
        reply.json()["message"],
    )
    for limit in (0, 40, None):
        assert score(client, path, query=query, max_tokens_per_query=limit) == score(
            client, path, query=query
        )


def test_a_limit_of_the_query_holds_for_each_query(client: TestClient) -> None:
    body = {
        "text_1": ["short", "word " * 30],
        "text_2": ["a", "b"],
        "max_tokens_per_query": 20,
    }

    reply = client.post("/score", json=body)

    assert reply.status_code == 400
    assert "max_tokens_per_query is 20" in reply.text


def test_a_very_long_query_is_counted_no_further_than_needed(client: TestClient) -> None:
    reply = post(client, "/rerank", query="word " * 3_000, max_tokens_per_query=20)

    assert reply.status_code == 400
    assert reply.json()["message"].startswith("the query takes ")


@pytest.mark.parametrize("path", PATHS)
def test_options_that_cannot_matter_here_are_known(client: TestClient, path: str) -> None:
    options = {
        "request_id": "r-1",
        "padding": "do_not_pad",
        "cache_salt": "c2FsdA",
        "mm_processor_kwargs": {"num_crops": 4},
        "max_tokens_per_query": 0,
        "truncation_side": "right",
    }

    reply = post(client, path, **options)

    assert reply.status_code == 200
    assert "x-rankd-warnings" not in reply.headers


def test_a_document_over_the_limit_in_chunks_fits_each_chunk(client: TestClient) -> None:
    """`chunk` and a limit of the prompt: every chunk is as long as the prompt leaves room for."""
    template = post(client, "/rerank", documents=[""]).json()["usage"]["prompt_tokens"]
    reply = post(
        client,
        "/openai/rerank",
        truncation="chunk",
        truncate_prompt_tokens=template + 20,
        return_details=True,
    )

    [result] = reply.json()["results"]
    assert result["chunk"]["of"] > 5
    assert result["tokens"] <= result["chunk"]["of"] * (template + 20)
    assert result["truncated"] is False


def test_a_limit_of_the_prompt_with_refuse_refuses_the_document(client: TestClient) -> None:
    reply = post(client, "/openai/rerank", truncation="refuse", truncate_prompt_tokens=120)

    assert reply.status_code == 400
    assert "documents[0]" in reply.json()["message"]


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"truncation_side": "middle"}, "truncation_side"),
        ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": True}, "truncate_prompt_tokens"),
        ({"max_tokens_per_query": -1}, "max_tokens_per_query"),
    ],
)
def test_a_wrong_option_is_refused_by_name(
    client: TestClient, options: dict[str, Any], param: str
) -> None:
    for path in PATHS:
        reply = post(client, path, **options)
        assert reply.status_code == 400
        assert reply.json()["error"]["param"] == param
