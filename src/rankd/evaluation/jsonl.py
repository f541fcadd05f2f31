"""Files of JSON lines, with errors that name the line."""

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
def opened(file: Path | str) -> Iterator[TextIO]:
    """A text file, or standard input for `-`; what is wrong with it is a sentence."""
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
    """Every line that is not blank, and its place as people name it."""
    with opened(file) as stream:
        for number, line in enumerate(stream, 1):
            if line := line.strip():
                yield f"{file}:{number}", line


def objects(file: Path | str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every line as a JSON object, and its place."""
    for place, line in lines(file):
        try:
            value = orjson.loads(line.encode(errors="replace"))
        except orjson.JSONDecodeError as problem:
            raise BadSettings(f"{place} is not JSON: {problem.msg}") from None
        if not isinstance(value, dict):
            raise BadSettings(f"{place} must be a JSON object, not {short(value)}")
        yield place, value


def text(place: str, row: dict[str, Any], name: str) -> str:
    """A field that must be a text with something in it."""
    if name not in row:
        refuse(place, f"has no {name!r}")
    value = row[name]
    if not isinstance(value, str):
        refuse(place, f"{name!r} must be a string, not {short(value)}")
    if not value.strip():
        refuse(place, f"{name!r} must not be empty")
    return value


def refuse(place: str, complaint: str) -> NoReturn:
    raise BadSettings(f"{place}: {complaint}")


def short(value: Any) -> str:
    shown = orjson.dumps(value).decode()
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
