"""Documents out of what somebody pasted: lines, JSON, JSON lines or CSV."""

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

# Where a request that somebody pasted whole has its documents, and a table its texts.
_LISTS = ("documents", "texts", "passages")
_COLUMNS = ("text", "content", "document", "passage", "body")


def parse(text: str, form: str = AUTO) -> list[Document]:
    """The documents in a text; texts of nothing but blanks are none.

    Args:
        form: one of `FORMATS`; auto looks at how the text begins.

    Raises:
        InvalidRequest: it is not in this form, or there is none; says where.
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
        raise InvalidRequest("there are no documents; write one in each line", param="documents")
    return documents


def _guess(text: str) -> str:
    """Only what can hardly be anything else is not read as lines."""
    first = text.lstrip().partition("\n")[0].strip()
    # A line of text may begin with a bracket; one that begins with a brace is an object.
    if first.startswith("{") or (first.startswith("[") and text.rstrip().endswith("]")):
        return JSON
    names = {name.strip().lower() for name in first.split(",")}
    return CSV if "," in first and names & set(_COLUMNS) else LINES


def _json(text: str) -> list[Document]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as problem:
        if len(text.strip().splitlines()) > 1 and not text.lstrip().startswith("["):
            return _json_lines(text)
        raise InvalidRequest(
            f"the documents are not valid JSON, in line {problem.lineno}: {problem.msg}",
            param="documents",
        ) from None
    if isinstance(value, dict):
        lists = [value[name] for name in _LISTS if isinstance(value.get(name), list)]
        value = lists[0] if lists else [value]
    if not isinstance(value, list):
        raise InvalidRequest("the JSON must be an array of documents", param="documents")
    return [_document(item, place) for place, item in enumerate(value, 1)]


def _json_lines(text: str) -> list[Document]:
    documents = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            documents.append(_document(orjson.loads(line), number))
        except orjson.JSONDecodeError as problem:
            raise InvalidRequest(
                f"line {number} of the documents is not valid JSON: {problem.msg}",
                param="documents",
            ) from None
    return documents


def _document(value: Any, place: int) -> Document:
    if isinstance(value, str | dict):
        return value
    raise InvalidRequest(
        f"document {place:,} must be a text or an object with a text", param="documents"
    )


def _csv(text: str) -> list[Document]:
    try:
        rows = [row for row in csv.reader(io.StringIO(text.strip()), strict=True) if any(row)]
    except csv.Error as problem:
        raise InvalidRequest(f"the documents are not valid CSV: {problem}") from None
    if not rows:
        return []
    names = [name.strip() for name in rows[0]]
    column = _column(names)
    if column is None and len(names) == 1:
        return [row[0] for row in rows]  # One column without a known name has no name.
    if column is None:
        return [dict(zip(names, row, strict=False)) for row in rows[1:]]
    return [row[column] for row in rows[1:] if len(row) > column and row[column].strip()]


def _column(names: Sequence[str]) -> int | None:
    lower = [name.lower() for name in names]
    return next((lower.index(name) for name in _COLUMNS if name in lower), None)
