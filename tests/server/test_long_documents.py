"""A document of 100,000 tokens with the answer at its end, on the built-in model."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.servers import serving

QUERY = "What is the capital of China?"
ANSWER = "The capital of China is Beijing."
WORDS = ["river", "market", "winter", "garden", "letter", "music", "window", "forest", "train"]


def filler(count: int) -> str:
    """`count` words in sentences without the answer."""
    chance = random.Random(3)
    sentences = (" ".join(chance.choices(WORDS, k=9)) for _ in range(count // 9))
    return " ".join(f"The {sentence}." for sentence in sentences)


LONG = f"{filler(86_000)} {ANSWER}"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving("--cache-mb", "0") as server:
        yield server.url


def rank(url: str, **body: Any) -> httpx.Response:
    request = {"query": QUERY, "documents": [LONG, "Lions hunt at night."], "return_details": True}
    return httpx.post(f"{url}/v1/rerank", json={**request, **body}, timeout=300)


def result_of_long_document(answer: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any]
    [result] = [result for result in answer["results"] if result["index"] == 0]
    return result


def test_refuse_names_the_document_and_its_size(url: str) -> None:
    size = httpx.post(f"{url}/tokenize", json={"prompt": f" {LONG}"}, timeout=60).json()["count"]
    assert size > 100_000

    reply = rank(url, truncation="refuse")

    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "documents"
    message = reply.json()["message"]
    assert message.startswith("1 of 2 documents exceed 8,1")
    assert message.endswith(f"documents[0] ({size:,})")


def test_cut_loses_the_answer_and_adds_a_warning(url: str) -> None:
    answer = rank(url, truncation="cut").json()

    result = result_of_long_document(answer)
    assert result["relevance_score"] < 0.1
    assert result["truncated"] is True
    assert ANSWER not in LONG[result["chunk"]["start"] : result["chunk"]["end"]]
    [warning] = answer["meta"]["warnings"]
    assert warning.startswith("document 0 was cut from 1")


def test_chunk_finds_the_answer_and_its_position(url: str) -> None:
    answer = rank(url, truncation="chunk").json()

    result = answer["results"][0]
    assert result["index"] == 0
    assert result["relevance_score"] > 0.1
    assert result["truncated"] is False
    assert "warnings" not in answer["meta"]
    chunk = result["chunk"]
    assert ANSWER in LONG[chunk["start"] : chunk["end"]]
    assert chunk["end"] - chunk["start"] < 5_000
    assert chunk["index"] == chunk["of"] - 1 > 200


def test_truncation_at_the_start_finds_the_answer(url: str) -> None:
    answer = rank(url, truncation_side="left", max_tokens_per_doc=300).json()

    result = result_of_long_document(answer)
    assert result["relevance_score"] > 0.1
    assert LONG[result["chunk"]["start"] : result["chunk"]["end"]].endswith(ANSWER)


def test_the_end_of_a_text_of_a_million_characters_is_found(url: str) -> None:
    text = f"{filler(200_000)} Größe: e\u0301 🙂. {ANSWER}"
    assert len(text) > 1_000_000

    body = {"truncation": "chunk", "truncation_side": "left", "max_chunks_per_doc": 3}
    reply = rank(url, documents=[text], max_tokens_per_doc=200, overlap_tokens=50, **body).json()

    [result] = reply["results"]
    assert ANSWER in text[result["chunk"]["start"] : result["chunk"]["end"]]
    assert result["chunk"]["end"] == len(text)
    [warning] = reply["meta"]["warnings"]
    assert warning.startswith("document 0 was cut from more than ")


def test_a_query_longer_than_half_the_limit_is_refused(url: str) -> None:
    reply = rank(url, query="why " * 5_000)

    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "query"
    assert "5,001 tokens; the limit is 4,096" in reply.json()["message"]
