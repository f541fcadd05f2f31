"""Documents that do not fit: cut at either end, refused, or read in chunks; and it is said."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rankd.config.settings import Settings
from rankd.server.app import open_app

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


def details(client: TestClient, **body: Any) -> dict[str, Any]:
    """The result of one long document, whose answer is its end."""
    answer = rank(client, "/v1/rerank", documents=[LONG], return_details=True, **body).json()
    [result] = answer["results"]
    assert result["tokens"] == answer["usage"]["prompt_tokens"]
    found: dict[str, Any] = result
    return found


def test_the_best_chunk_is_told_with_its_place(client: TestClient) -> None:
    result = details(client, truncation="chunk", max_tokens_per_doc=20, overlap_tokens=10)

    chunk = result["chunk"]
    assert "the capital of China is Beijing" in LONG[chunk["start"] : chunk["end"]]
    assert 0 < chunk["index"] < chunk["of"]
    assert result["truncated"] is False


def test_of_a_document_that_was_cut_the_part_that_was_read_is_told(client: TestClient) -> None:
    right = details(client, truncation="cut", max_tokens_per_doc=20)
    left = details(client, truncation="cut", truncation_side="left", max_tokens_per_doc=20)

    assert right["truncated"] is left["truncated"] is True
    assert right["chunk"]["start"] == 0
    assert left["chunk"]["end"] == len(LONG)
    assert LONG[left["chunk"]["start"] :].endswith("capital of China is Beijing")


def test_of_a_whole_document_the_chunk_is_all_of_it(client: TestClient) -> None:
    assert details(client)["chunk"] == {"index": 0, "of": 1, "start": 0, "end": len(LONG)}


def test_results_hold_no_details_that_nobody_asked_for(client: TestClient) -> None:
    for wish in ({}, {"return_details": False}, {"return_details": None}):
        [result] = rank(client, "/v1/rerank", documents=[LONG], **wish).json()["results"]
        assert set(result) == {"index", "relevance_score", "document"}


def test_of_an_object_the_place_is_in_the_text_that_the_answer_repeats(client: TestClient) -> None:
    document = {"title": "about 🙂", "body": LONG, "tags": ["a"]}

    [result] = rank(
        client,
        "/v1/rerank",
        documents=[document],
        return_details=True,
        truncation="chunk",
        max_tokens_per_doc=20,
        overlap_tokens=10,
    ).json()["results"]

    text = result["document"]["text"]
    assert "Beijing" in text[result["chunk"]["start"] : result["chunk"]["end"]]


def test_places_count_characters_of_what_the_client_wrote(client: TestClient) -> None:
    # Half an emoji, whole ones, and letters that are composed before they are read.
    filler = '"🙂 \\ud83d e\\u0301 ' + "🫠 und e\\u0301 " * 30 + 'the capital of China is Beijing"'
    body = (
        '{"query": "Beijing", "truncation": "chunk", "max_tokens_per_doc": 20, '
        f'"overlap_tokens": 15, "return_details": true, "documents": [{filler}]}}'
    )

    [result] = client.post("/v1/rerank", content=body).json()["results"]

    text = json.loads(filler, strict=False)
    assert "capital of China is Beijing" in text[result["chunk"]["start"] : result["chunk"]["end"]]
    assert result["chunk"]["end"] == len(text)


def test_what_says_two_things_is_refused(client: TestClient) -> None:
    for said in ("cut", "refuse"):
        body = {"query": "q", "documents": ["d"], "truncation": said, "max_chunks_per_doc": 4}
        reply = client.post("/rerank", json=body)
        assert reply.status_code == 400
        assert reply.json()["error"]["param"] == "max_chunks_per_doc"
        assert f"truncation '{said}' makes no chunks and max_chunks_per_doc is 4" in reply.text


@pytest.mark.parametrize("value", ["end", "CUT!", 1, [], {}])
def test_another_word_is_refused_with_those_that_are_known(client: TestClient, value: Any) -> None:
    body = {"query": "q", "documents": ["d"], "truncation": value}

    reply = client.post("/openai/rerank", json=body)

    assert reply.status_code == 400
    assert "truncation must be 'cut', 'refuse', 'chunk', true or false, not" in reply.text


@pytest.mark.parametrize(
    ("path", "truncation", "status"),
    [
        *(("/openai/rerank", value, 200) for value in (True, "true", "cut", "chunk", None)),
        *(("/openai/rerank", value, 400) for value in (False, "false", "refuse")),
        *(("/voyage/v1/rerank", value, 200) for value in (True, "cut", "chunk", None)),
        *(("/jina/v1/rerank", value, 400) for value in (False, "refuse")),
    ],
)
def test_truncation_is_a_word_or_a_boolean(
    client: TestClient, path: str, truncation: Any, status: int
) -> None:
    body = {"query": "q", "documents": ["x " * 9_000], "truncation": truncation}

    assert client.post(path, json=body).status_code == status


def test_the_server_decides_for_who_says_nothing() -> None:
    long = {"query": "capital of China", "documents": [LONG + " and so on" * 9_000]}

    def answers(**options: Any) -> dict[str, Any]:
        with asyncio.Runner() as runner:
            context = open_app(Settings(engine="fake", **options))
            client = TestClient(runner.run(context.__aenter__()))
            bodies = {
                "own": ("/v1/rerank", {**long, "return_details": True}),
                "told": ("/v1/rerank", {**long, "truncation": "cut"}),
                "voyage": ("/voyage/v1/rerank", long),
                "v1": ("/cohere/v1/rerank", long),
                "info": None,
            }
            found = {
                name: client.get("/info") if one is None else client.post(one[0], json=one[1])
                for name, one in bodies.items()
            }
            runner.run(context.__aexit__(None, None, None))
        return found

    cut, refuse = answers(), answers(truncation="refuse")
    chunk = answers(truncation="chunk")

    assert cut["own"].json()["results"][0]["truncated"] is True
    assert cut["info"].json()["auto_truncate"] is True
    assert (refuse["own"].status_code, refuse["voyage"].status_code) == (400, 400)
    assert (refuse["told"].status_code, refuse["v1"].status_code) == (200, 200)
    assert refuse["info"].json()["auto_truncate"] is False
    assert chunk["own"].json()["results"][0]["chunk"]["of"] > 50
    assert "was cut" in chunk["told"].headers["x-rankd-warnings"]
    assert "x-rankd-warnings" not in chunk["voyage"].headers
