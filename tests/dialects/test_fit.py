"""Documents that do not fit: cut at either end, refused, or read in chunks."""

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


def test_a_document_in_chunks_has_the_score_of_its_best_chunk(client: TestClient) -> None:
    cut = score(client)
    few = score(client, max_chunks_per_doc=2)
    complete = score(client, max_chunks_per_doc=100)

    assert cut == few < complete


def test_chunks_overlap_by_overlap_tokens(client: TestClient) -> None:
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


def test_a_warning_names_a_document_that_chunks_do_not_cover(client: TestClient) -> None:
    answer = rank(
        client, "/rerank", documents=[LONG], max_tokens_per_doc=20, max_chunks_per_doc=3
    ).json()

    [warning] = answer["meta"]["warnings"]
    assert warning.endswith(" to 60 tokens")


def test_more_than_10000_chunks_are_refused(client: TestClient) -> None:
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


def test_tei_cuts_at_the_requested_end(client: TestClient) -> None:
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
def test_without_truncation_a_long_document_is_refused_with_its_size(
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
    details: dict[str, Any] = result
    return details


def test_details_hold_the_position_of_the_best_chunk(client: TestClient) -> None:
    result = details(client, truncation="chunk", max_tokens_per_doc=20, overlap_tokens=10)

    chunk = result["chunk"]
    assert "the capital of China is Beijing" in LONG[chunk["start"] : chunk["end"]]
    assert 0 < chunk["index"] < chunk["of"]
    assert result["truncated"] is False


def test_details_of_a_cut_document_hold_the_part_that_was_read(client: TestClient) -> None:
    right = details(client, truncation="cut", max_tokens_per_doc=20)
    left = details(client, truncation="cut", truncation_side="left", max_tokens_per_doc=20)

    assert right["truncated"] is left["truncated"] is True
    assert right["chunk"]["start"] == 0
    assert left["chunk"]["end"] == len(LONG)
    assert LONG[left["chunk"]["start"] :].endswith("capital of China is Beijing")


def test_details_of_a_document_that_fits_hold_one_chunk(client: TestClient) -> None:
    assert details(client)["chunk"] == {"index": 0, "of": 1, "start": 0, "end": len(LONG)}


def test_results_hold_details_only_on_request(client: TestClient) -> None:
    for options in ({}, {"return_details": False}, {"return_details": None}):
        [result] = rank(client, "/v1/rerank", documents=[LONG], **options).json()["results"]
        assert set(result) == {"index", "relevance_score", "document"}


def test_positions_in_an_object_refer_to_the_text_in_the_answer(client: TestClient) -> None:
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


def test_positions_count_characters_of_the_text_as_sent(client: TestClient) -> None:
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


def test_truncation_without_chunks_and_several_chunks_are_refused(client: TestClient) -> None:
    for truncation in ("cut", "refuse"):
        body = {"query": "q", "documents": ["d"], "truncation": truncation, "max_chunks_per_doc": 4}
        reply = client.post("/rerank", json=body)
        assert reply.status_code == 400
        assert reply.json()["error"]["param"] == "max_chunks_per_doc"
        assert (
            f"truncation '{truncation}' makes no chunks and max_chunks_per_doc is 4" in reply.text
        )


@pytest.mark.parametrize("value", ["end", "CUT!", 1, [], {}])
def test_an_unknown_truncation_is_refused_with_the_known_ones(
    client: TestClient, value: Any
) -> None:
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


def test_the_servers_setting_is_the_default() -> None:
    long = {"query": "capital of China", "documents": [LONG + " and so on" * 9_000]}

    def answers(**options: Any) -> dict[str, Any]:
        with asyncio.Runner() as runner:
            context = open_app(Settings(engine="fake", **options))
            client = TestClient(runner.run(context.__aenter__()))
            bodies = {
                "own": ("/v1/rerank", {**long, "return_details": True}),
                "explicit": ("/v1/rerank", {**long, "truncation": "cut"}),
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
    assert (refuse["explicit"].status_code, refuse["v1"].status_code) == (200, 200)
    assert refuse["info"].json()["auto_truncate"] is False
    assert chunk["own"].json()["results"][0]["chunk"]["of"] > 50
    assert "was cut" in chunk["explicit"].headers["x-rankd-warnings"]
    assert "x-rankd-warnings" not in chunk["voyage"].headers
