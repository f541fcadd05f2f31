"""What counts as a text: strings, objects, chat blocks; and what an answer repeats of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rankd.dialects.texts import text_of

BOOK = {"title": "Moby-Dick", "year": 1851, "about": ["a whale", "a captain"], "none": None}


@pytest.mark.parametrize(
    ("value", "fields", "text"),
    [
        ("as it is", (), "as it is"),
        ("as it is", ("title",), "as it is"),
        ({"text": "its text", "title": "not read"}, (), "its text"),
        ({"text": ""}, (), ""),
        ({"content": "a message"}, (), "a message"),
        ({"content": [{"type": "text", "text": "one block"}]}, (), "one block"),
        (
            {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            (),
            "a\nb",
        ),
        (BOOK, (), 'title: Moby-Dick\nyear: 1851\nabout: ["a whale", "a captain"]\nnone: null'),
        (BOOK, ("year", "title"), "year: 1851\ntitle: Moby-Dick"),
        (BOOK, ("title",), "Moby-Dick"),
        (BOOK, ("year",), "1851"),
        (BOOK, ("none", "title"), "title: Moby-Dick"),
        (BOOK | {"text": "t"}, ("title",), "Moby-Dick"),
        ({"name": "Köln 北京"}, (), "name: Köln 北京"),
    ],
)
def test_what_is_read_of_a_value(value: Any, fields: tuple[str, ...], text: str) -> None:
    assert text_of(value, fields) == text


@pytest.mark.parametrize(
    ("value", "fields", "complaint"),
    [
        (None, (), "must be a string or an object with `text`, not null"),
        (["a"], (), "must be a string or an object with `text`, not an array"),
        ({}, (), "must not be an empty object"),
        ({"text": 7}, (), "must hold its text as a string in `text`, not a number (7)"),
        ({"text": None}, (), "must hold its text as a string in `text`, not null"),
        ({"content": []}, (), "must hold blocks in `content`, not an array"),
        (
            {"content": [{"type": "image_url", "image_url": "x"}]},
            (),
            "has a block of type 'image_url'; this model reads text only",
        ),
        ({"content": [{"text": "no type"}]}, (), "must hold its text in blocks of type 'text'"),
        (BOOK, ("author", "isbn"), "has none of the rank_fields 'author', 'isbn'"),
        (BOOK, ("none",), "has none of the rank_fields 'none'"),
    ],
)
def test_what_is_no_text(value: Any, fields: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(ValueError, match="^" + complaint.split("(")[0].split("[")[0]) as wrong:
        text_of(value, fields)

    assert str(wrong.value) == complaint


def test_an_object_is_repeated_with_its_text(client: TestClient) -> None:
    reply = client.post("/rerank", json={"query": "q", "documents": [{"title": "t", "id": 7}]})

    assert reply.json()["results"][0]["document"] == {
        "title": "t",
        "id": 7,
        "text": "title: t\nid: 7",
    }


def test_rank_fields_decide_what_the_model_reads(client: TestClient) -> None:
    books = [{"title": "whales", "body": "ships"}, {"title": "ships", "body": "whales"}]

    def best(field: str) -> int:
        body = {"query": "whales", "documents": books, "rank_fields": [field]}
        index: int = client.post("/rerank", json=body).json()["results"][0]["index"]
        return index

    assert (best("title"), best("body")) == (0, 1)


def test_a_wrong_document_is_named_by_its_place_and_field(client: TestClient) -> None:
    for path, body, param in (
        ("/rerank", {"query": "q", "documents": ["a", {"content": [3]}]}, "documents[1]"),
        ("/rerank", {"query": "q", "texts": ["a", None]}, "texts[1]"),
        ("/rerank", {"query": "q", "passages": [5]}, "passages[0]"),
        ("/rerank", {"input": {"query": "q", "documents": [{}]}}, "input.documents[0]"),
        ("/pinecone/rerank", {"query": "q", "documents": [{"a": 1}], "rank_fields": ["b"]}, ""),
    ):
        reply = client.post(path, json=body)
        assert reply.status_code == 400
        assert reply.json()["message"].startswith(param)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("the body", {str(n): 1 for n in range(9_999)} | {"query": "q", "documents": ["d"]}),
        ("documents[1]", {"query": "q", "documents": ["d", {str(n): 1 for n in range(10_001)}]}),
        ("input", {"input": {str(n): 1 for n in range(10_001)}}),
    ],
)
def test_more_fields_than_anyone_means_are_refused(
    client: TestClient, path: str, body: dict[str, Any]
) -> None:
    reply = client.post("/rerank", content=json.dumps(body, separators=(",", ":")))

    assert reply.status_code == 413
    assert reply.json()["message"] == f"{path} has 10,001 fields; the limit is 10,000"
