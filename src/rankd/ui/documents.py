"""Reads documents from pasted text: lines, JSON, JSON lines or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import orjson

from rankd.errors import InvalidRequest

Document = str | dict[str, Any]

AUTO = "auto"
LINES = "lines"
JSON = "json"
CSV = "csv"
FORMATS = (AUTO, LINES, JSON, CSV)

# Fields with the documents in a pasted request.
_LIST_FIELDS = ("documents", "texts", "passages")

# Columns with the text in a table, in order of preference.
_TEXT_COLUMNS = ("text", "content", "document", "passage", "body")


def parse(text: str, form: str = AUTO) -> list[Document]:
    """The documents in a text; blank lines are skipped.

    Args:
        form: one of `FORMATS`; "auto" guesses from the first line.

    Raises:
        InvalidRequest: the text is not in this format, or has no documents.
    """
    if form == AUTO:
        form = _guess(text)
    if form == JSON:
        documents = _json(text)
    elif form == CSV:
        documents = _csv(text)
    else:
        documents = [line.strip() for line in text.splitlines() if line.strip()]
    if not documents:
        raise InvalidRequest("there are no documents; write one per line", param="documents")
    return documents


def _guess(text: str) -> str:
    """JSON or CSV only if the first line can hardly be anything else."""
    first = text.lstrip().partition("\n")[0].strip()
    # Lines of text may begin with "[1]"; hardly any begins with a brace.
    if first.startswith("{") or (first.startswith("[") and text.rstrip().endswith("]")):
        return JSON
    names = {name.strip().lower() for name in first.split(",")}
    return CSV if "," in first and names & set(_TEXT_COLUMNS) else LINES


def _json(text: str) -> list[Document]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if len(text.strip().splitlines()) > 1 and not text.lstrip().startswith("["):
            return _json_lines(text)
        raise InvalidRequest(
            f"the documents are not valid JSON, line {error.lineno}: {error.msg}",
            param="documents",
        ) from None
    if isinstance(value, dict):
        lists = [value[name] for name in _LIST_FIELDS if isinstance(value.get(name), list)]
        value = lists[0] if lists else [value]
    if not isinstance(value, list):
        raise InvalidRequest("the JSON must be an array of documents", param="documents")
    return [_document(item, number) for number, item in enumerate(value, 1)]


def _json_lines(text: str) -> list[Document]:
    documents = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            documents.append(_document(orjson.loads(line), number))
        except orjson.JSONDecodeError as error:
            raise InvalidRequest(
                f"line {number} of the documents is not valid JSON: {error.msg}",
                param="documents",
            ) from None
    return documents


def _document(value: Any, number: int) -> Document:
    if isinstance(value, str | dict):
        return value
    raise InvalidRequest(
        f"document {number:,} must be a string or an object with a text", param="documents"
    )


def _csv(text: str) -> list[Document]:
    try:
        rows = [row for row in csv.reader(io.StringIO(text.strip()), strict=True) if any(row)]
    except csv.Error as error:
        raise InvalidRequest(f"the documents are not valid CSV: {error}") from None
    if not rows:
        return []
    names = [name.strip() for name in rows[0]]
    column = _text_column(names)
    if column is None and len(names) == 1:
        return [row[0] for row in rows]  # A single column needs no header.
    if column is None:
        return [dict(zip(names, row, strict=False)) for row in rows[1:]]
    return [row[column] for row in rows[1:] if len(row) > column and row[column].strip()]


def _text_column(names: Sequence[str]) -> int | None:
    lower = [name.lower() for name in names]
    return next((lower.index(name) for name in _TEXT_COLUMNS if name in lower), None)
