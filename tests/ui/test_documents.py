"""Pasted text becomes documents, or an error that says what is wrong with it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankd.errors import InvalidRequest
from rankd.ui.documents import AUTO, CSV, FORMATS, JSON, LINES, Document, parse


def test_every_line_is_a_document_and_blank_lines_are_skipped() -> None:
    assert parse("one\n\n  two, and more \r\nthree\n") == ["one", "two, and more", "three"]


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        ('["a", {"text": "b"}]', ["a", {"text": "b"}]),
        ('[\n "a",\n "b"\n]\n', ["a", "b"]),
        ('{"query": "q", "documents": ["a", "b"]}', ["a", "b"]),
        ('{"text": "a"}\n{"text": "b"}\n', [{"text": "a"}, {"text": "b"}]),
        ('{"text": "a"}', [{"text": "a"}]),
        ('id,text\n1,"a, ""b"""\n2,c\n', ['a, "b"', "c"]),
        ("Title,Content\nx,one\ny,two\n", ["one", "two"]),
    ],
)
def test_auto_detects_json_and_csv(text: str, documents: list[Document]) -> None:
    assert parse(text, AUTO) == documents


@pytest.mark.parametrize("line", ["[1] A footnote", "Yes, of course", '"Hello," she said'])
def test_auto_reads_lines_that_only_begin_like_json_or_csv_as_lines(line: str) -> None:
    assert parse(f"{line}\nanother", AUTO) == [line, "another"]


def test_csv_without_a_text_column_gives_objects_with_all_fields() -> None:
    assert parse("title,year\nRuns,1999\n", CSV) == [{"title": "Runs", "year": "1999"}]


def test_csv_with_one_column_needs_no_header() -> None:
    assert parse('one\n"two\nlines"\n', CSV) == ["one", "two\nlines"]


@pytest.mark.parametrize(
    ("text", "form", "message"),
    [
        ("", AUTO, "no documents"),
        (" \n ", LINES, "no documents"),
        ("id,text\n", CSV, "no documents"),
        ('["a",\n "b', JSON, "line 2"),
        ('{"text": "a"}\n{"text": ', JSON, "line 2"),
        ("7", JSON, "array"),
        ('["a", 7]', JSON, "document 2"),
        ('a,"b', CSV, "CSV"),
    ],
)
def test_unreadable_text_is_an_invalid_request(text: str, form: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        parse(text, form)


@given(text=st.text(), form=st.sampled_from(FORMATS))
def test_any_text_gives_documents_or_an_invalid_request(text: str, form: str) -> None:
    try:
        documents = parse(text, form)
    except InvalidRequest:
        return
    assert documents
    assert all(isinstance(document, str | dict) for document in documents)


@given(st.lists(st.text(), min_size=1))
def test_a_json_array_of_strings_is_returned_unchanged(texts: list[str]) -> None:
    assert parse(json.dumps(texts), JSON) == texts


def test_deeply_nested_json_is_an_invalid_request() -> None:
    with pytest.raises(InvalidRequest, match="JSON"):
        parse("[" * 100_000, JSON)
