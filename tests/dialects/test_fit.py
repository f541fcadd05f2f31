"""Documents that do not fit: cut at either end, refused, or read in chunks; and it is said."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

LONG = "nothing of interest here. " * 40 + "the capital of China is Beijing"


def rank(client: TestClient, path: str, **body: Any) -> Any:
    reply = client.post(path, json={"query": "capital of China", **body})
    assert reply.status_code == 200, reply.text
    return reply


def score(client: TestClient, **body: Any) -> float:
    answer = rank(client, "/v1/rerank", documents=[LONG], max_tokens_per_doc=20, **body).json()
    number: float = answer["results"][0]["relevance_score"]
    return number


def test_of_a_document_read_in_chunks_the_best_counts(client: TestClient) -> None:
    cut = score(client)
    few = score(client, max_chunks_per_doc=2)
    all_of_it = score(client, max_chunks_per_doc=100)

    assert cut == few < all_of_it


def test_chunks_overlap_when_asked_to(client: TestClient) -> None:
    apart = rank(
        client, "/rerank", documents=[LONG], max_tokens_per_doc=20, max_chunks_per_doc=100
    ).json()
    overlapping = rank(
        client,
        "/rerank",
        documents=[LONG],
        max_tokens_per_doc=20,
        max_chunks_per_doc=100,
        overlap_tokens=15,
    ).json()

    assert overlapping["usage"]["total_tokens"] > 2 * apart["usage"]["total_tokens"]
    assert "warnings" not in apart["meta"]


def test_what_chunks_leave_out_is_said(client: TestClient) -> None:
    answer = rank(
        client, "/rerank", documents=[LONG], max_tokens_per_doc=20, max_chunks_per_doc=3
    ).json()

    [warning] = answer["meta"]["warnings"]
    assert warning.endswith(" to 60 tokens")


def test_too_many_chunks_are_refused_with_the_numbers(client: TestClient) -> None:
    reply = client.post(
        "/rerank",
        json={
            "query": "q",
            "documents": [f"{place} " * 1_500 for place in range(20)],
            "max_tokens_per_doc": 1,
            "max_chunks_per_doc": 5_000,
        },
    )

    assert reply.status_code == 413
    assert "the limit is 10,000: lower max_chunks_per_doc" in reply.json()["message"]


def test_tei_cuts_at_the_side_that_is_asked_for(client: TestClient) -> None:
    texts = ["Beijing " + "and so on " * 9_000, "and so on " * 9_000 + "Beijing"]

    def scores(direction: str) -> list[float]:
        small = {"texts": texts[:1], "truncation_direction": direction}
        large = {"texts": texts[1:], "truncation_direction": direction}
        return [
            client.post("/rerank", json={"query": "Beijing", **body}).json()[0]["score"]
            for body in (small, large)
        ]

    right, left = scores("Right"), scores("left")

    assert right[0] > right[1]
    assert left[1] > left[0]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/rerank", {"texts": ["short", "x " * 9_000], "truncate": False}),
        ("/rerank", {"documents": ["short", "x " * 9_000], "truncation": False}),
        ("/v1/ranking", {"passages": ["short", "x " * 9_000], "truncate": "NONE"}),
        (
            "/pinecone/rerank",
            {"documents": ["short", "x " * 9_000], "parameters": {"truncate": "NONE"}},
        ),
    ],
)
def test_a_document_that_must_not_be_cut_is_refused_with_its_size(
    client: TestClient, path: str, body: dict[str, Any]
) -> None:
    reply = client.post(path, json={"query": "q", **body})

    assert reply.status_code == 400
    assert reply.json()["message"].startswith("1 of 2 documents exceed 8,1")
    assert f"{next(iter(body))}[1] (9,0" in reply.json()["message"]
