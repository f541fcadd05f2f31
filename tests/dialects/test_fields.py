"""Texts in strings, objects and chat blocks, and how answers repeat them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from rankd.dialects.text_objects import text_of
from rankd.models.checkpoint import Checkpoint
from rankd.prompts import open_encoder
from rankd.types import RankRequest
from support.yardstick import scaled

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
        (BOOK, (), "title: Moby-Dick\nyear: 1851\nabout:\n- a whale\n- a captain\nnone: null"),
        (BOOK, ("about",), "- a whale\n- a captain"),
        (BOOK, ("year", "title"), "year: 1851\ntitle: Moby-Dick"),
        (BOOK, ("title",), "Moby-Dick"),
        (BOOK, ("year",), "1851"),
        (BOOK, ("none", "title"), "title: Moby-Dick"),
        (BOOK | {"text": "t"}, ("title",), "Moby-Dick"),
        ({"name": "Köln 北京"}, (), "name: Köln 北京"),
    ],
)
def test_a_value_is_read_as_this_text(value: Any, fields: tuple[str, ...], text: str) -> None:
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
        ({"content": [{"words": "no text"}]}, (), "must hold its text in blocks of type 'text'"),
        (BOOK, ("author", "isbn"), "has none of the rank_fields 'author', 'isbn'"),
        (BOOK, ("none",), "has none of the rank_fields 'none'"),
    ],
)
def test_a_value_without_text_is_refused(
    value: Any, fields: tuple[str, ...], complaint: str
) -> None:
    with pytest.raises(ValueError, match="^" + complaint.split("(")[0].split("[")[0]) as wrong:
        text_of(value, fields)

    assert str(wrong.value) == complaint


def test_an_answer_repeats_an_object_with_its_text(client: TestClient) -> None:
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


def test_a_wrong_document_is_named_by_its_field_and_index(client: TestClient) -> None:
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
def test_more_than_10000_fields_are_refused(
    client: TestClient, path: str, body: dict[str, Any]
) -> None:
    reply = client.post("/rerank", content=json.dumps(body, separators=(",", ":")))

    assert reply.status_code == 413
    assert reply.json()["message"] == f"{path} has 10,001 fields; the limit is 10,000"


# From Cohere's documentation of structured documents.
LETTER = {
    "from": "Paul Doe <paul_fake_doe@oracle.com>",
    "to": ["Steve <steve@me.com>", "lisa@example.com"],
    "date": "2024-03-27",
    "sent": {"by": "smtp", "tries": 2, "ok": True, "notes": None, "cc": [], "size": 1.5},
    "parts": [{"kind": "text", "words": [1, 2]}, [3, [4]], "plain"],
    "empty": {},
}


def test_an_object_is_written_as_yaml_as_cohere_documents() -> None:
    assert text_of(LETTER) == yaml.dump(LETTER, sort_keys=False).rstrip("\n").replace(
        "'2024-03-27'", "2024-03-27"
    )


words = st.from_regex(r"[a-z][a-z ]{0,20}[b-df-km-x]z", fullmatch=True)
values = st.recursive(
    st.one_of(words, st.integers(-1000, 1000), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(words, inner, max_size=4)),
    max_leaves=12,
)


@pytest.mark.slow
@given(document=st.dictionaries(words, values, min_size=1, max_size=6))
def test_plain_words_are_written_exactly_as_yaml(document: dict[str, Any]) -> None:
    dumped = yaml.dump(document, sort_keys=False, width=10**6, allow_unicode=True)

    assert text_of(document) == dumped.rstrip("\n")


@given(lines=st.lists(words, min_size=2, max_size=5))
def test_a_text_of_many_lines_is_valid_yaml(lines: list[str]) -> None:
    document = {"title": "t", "body": "\n".join(lines), "list": ["\n\n".join(lines)]}

    assert yaml.safe_load(text_of(document)) == document
    assert yaml.safe_load(text_of({"in": {"deep": document}})) == {"in": {"deep": document}}


def test_words_are_not_quoted() -> None:
    document = {"quote": 'He said: "no" # never', "dash": "- x", "path": "C:\\temp", "yes": "yes"}

    assert text_of(document) == 'quote: He said: "no" # never\ndash: - x\npath: C:\\temp\nyes: yes'


@pytest.mark.parametrize("line_break", ["\n", "\r", "\r\n", "\n\n"])
def test_no_line_of_a_text_reads_like_a_field(line_break: str) -> None:
    for value in (
        f"cheap{line_break}price: 0",
        [f"a{line_break}price: 0"],
        {"b": f"c{line_break}price: 0"},
    ):
        for document in (
            {"title": value, "price": 9},
            {f"x{line_break}price: 0": "y", "title": value},
        ):
            lines = text_of(document).splitlines()
            assert not any(line.startswith("price: 0") for line in lines)


@pytest.mark.parametrize("place", ["{0}", "a {0} b", "{0}\n{0}"])
def test_control_tokens_in_names_and_values_are_text(builtin: Path, place: str) -> None:
    encoder = open_encoder(
        Checkpoint(builtin, "test", {}),
        max_tokens=4_096,
        instruction="i",
        max_instruction_tokens=64,
    )
    control = {"<|im_end|>", "<|im_start|>", "<think>", "</think>", "<|endoftext|>"}
    spec = json.loads((builtin / "tokenizer.json").read_text(encoding="utf-8"))
    ids = {token["id"] for token in spec["added_tokens"]}
    assert control & {token["content"] for token in spec["added_tokens"]}

    for token in control:
        bad = place.format(token)
        text = text_of({bad: bad, "list": [bad, {bad: [bad]}], "last": bad})
        harmless, hostile = (
            encoder.encode_blocking(RankRequest("q", (one,))).prompts[0] for one in ("plain", text)
        )
        assert sum(one in ids for one in hostile.suffix) == sum(
            one in ids for one in harmless.suffix
        )


@pytest.mark.parametrize(
    "value",
    [
        [0] * 5_000_000,
        {"deep": ["a\na"] * 900},
        {"text": "a\n" * 4_000_000},
        ["a\n" * 4_000_000],
    ],
)
def test_large_values_are_written_fast(value: Any) -> None:
    began = time.process_time()
    whole = text_of({"value": value, "title": "t"})
    alone = text_of({"value": value}, ("value",))

    assert whole.endswith("title: t")
    assert len(alone) <= len(whole) < 100_000_000
    assert time.process_time() - began < scaled(10)
