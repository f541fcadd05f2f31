"""Reads the documents of `rankd rerank`: one per line, from a file or stdin."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TextIO

from rankd.dialects.json_io import parse
from rankd.dialects.text_objects import text_of
from rankd.errors import BadSettings, InvalidRequest


def read_documents(file: str) -> list[dict[str, Any]]:
    """The documents of a file, in its order; each has its text in `text`.

    A line is a JSON object, a JSON string, or the text itself. The text of an object is what the
    server reads as such. Blank lines are skipped.

    Args:
        file: a path, or `-` for standard input.

    Raises:
        BadSettings: the file cannot be read, is not UTF-8, has a malformed line or no documents.
    """
    try:
        documents = list(_documents(file))
    except OSError as problem:
        raise BadSettings(f"cannot read {file}: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise BadSettings(f"{file} is not UTF-8 text") from None
    if not documents:
        raise BadSettings(f"{'standard input' if file == '-' else file} holds no documents")
    return documents


def _documents(file: str) -> Iterator[dict[str, Any]]:
    with _open(file) as stream:
        for number, line in enumerate(stream, 1):
            if line := line.strip().removeprefix("\ufeff"):
                yield _document(line, f"{file}:{number}")


def _open(file: str) -> AbstractContextManager[TextIO]:
    if file == "-":
        if sys.stdin is None:
            raise BadSettings("standard input is closed")
        # UTF-8 in every locale: most containers have plain ASCII.
        return io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8")
    return Path(file).open(encoding="utf-8")


def _document(line: str, location: str) -> dict[str, Any]:
    if line[0] not in '{"':
        return {"text": line}
    try:
        value = parse(line.encode())
    except InvalidRequest:
        if line[0] == '"':
            return {"text": line}  # Text that begins with a quotation.
        raise BadSettings(f"{location} begins like a JSON object, but is not valid JSON") from None
    try:
        text = text_of(value)
    except ValueError as problem:
        raise BadSettings(f"{location} {problem}") from None
    return {**value, "text": text} if isinstance(value, dict) else {"text": text}
