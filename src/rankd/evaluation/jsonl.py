"""Reads JSON Lines; errors name the file and line."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TextIO

import orjson

from rankd.errors import BadSettings


@contextmanager
def open_text(file: Path | str) -> Iterator[TextIO]:
    """Open a UTF-8 file, or standard input for `-`.

    Raises:
        BadSettings: it cannot be read, or is not UTF-8.
    """
    try:
        if file == "-":
            yield io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig")
        else:
            with Path(file).open(encoding="utf-8-sig") as stream:
                yield stream
    except OSError as problem:
        raise BadSettings(f"cannot read {file}: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise BadSettings(f"{file} is not UTF-8 text") from None


def lines(file: Path | str) -> Iterator[tuple[str, str]]:
    """Each line that is not blank, after its location `FILE:LINE`."""
    with open_text(file) as stream:
        for number, line in enumerate(stream, 1):
            if line := line.strip():
                yield f"{file}:{number}", line


def objects(file: Path | str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line as a JSON object, after its location.

    Raises:
        BadSettings: a line is not a JSON object.
    """
    for location, line in lines(file):
        try:
            value = orjson.loads(line.encode(errors="replace"))
        except orjson.JSONDecodeError as problem:
            raise BadSettings(f"{location} is not JSON: {problem.msg}") from None
        if not isinstance(value, dict):
            raise BadSettings(f"{location} must be a JSON object, not {excerpt(value)}")
        yield location, value


def text_field(location: str, row: dict[str, Any], name: str) -> str:
    """A required string field that is not blank."""
    if name not in row:
        refuse(location, f"has no {name!r}")
    value = row[name]
    if not isinstance(value, str):
        refuse(location, f"{name!r} must be a string, not {excerpt(value)}")
    if not value.strip():
        refuse(location, f"{name!r} must not be empty")
    return value


def refuse(location: str, problem: str) -> NoReturn:
    raise BadSettings(f"{location}: {problem}")


def excerpt(value: Any) -> str:
    """The value as JSON, at most 60 characters."""
    text = orjson.dumps(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."
