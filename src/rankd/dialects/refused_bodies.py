"""Bodies that are refused: their API, a field that stands twice, and what is no JSON in UTF-8.

Nothing here parses a body. Each step is one pass that a thread can share with others: no call of a
regular expression or a codec takes more than a tenth of a second for 32 MiB.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import orjson

# Strings, and the characters that open and close arrays and objects. A string without an end
# matches, too.
_TOKEN = re.compile(rb'"[^"]*+"?|[][{}]')

# What follows a name: its colon, and the first character of its value.
_COLON = re.compile(rb"\s*:\s*(.?)", re.DOTALL)

# Tokens that are looked at for an outline, in some 50 ms. A string is one, whatever its length.
_MAX_TOKENS = 200_000

# Values of the right kind, by their first character; any other is a number or a text.
_VALUES: dict[bytes, Any] = {b"[": [], b"{": {}, b"t": True, b"f": False, b"n": None}


def outline(body: bytes) -> dict[str, Any]:
    """The top-level fields of a body that was refused, to find its dialect.

    Returns:
        Names, each with an empty value of the right kind. Of a body with very many values only
        the first fields, of one that is no object none.
    """
    if body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"{":
        return {}
    tokens = islice(_tokens(body), _MAX_TOKENS)
    return {
        _decoded(name): _VALUES.get(value, "")
        for depth, name, value in _names(tokens)
        if depth == 1
    }


def field_twice(body: bytes) -> str | None:
    """The name of a field that an object has twice, of valid JSON."""
    objects: dict[int, set[str]] = {}
    depth = 0
    for token, name, _ in _tokens(body):
        if token in b"[{":
            depth += 1
            objects[depth] = set()
        elif token in b"]}":
            depth -= 1
        elif name:
            text = _decoded(name)
            if text in objects[depth]:
                return text
            objects[depth].add(text)
    return None


def _names(tokens: Iterator[tuple[bytes, bytes, bytes]]) -> Iterator[tuple[int, bytes, bytes]]:
    """For each name its depth, 1 at the top, the name, and the first character of the value."""
    depth = 0
    for token, name, value in tokens:
        if token in b"[{":
            depth += 1
        elif token in b"]}":
            depth -= 1
        elif name:
            yield depth, name, value


def _tokens(body: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Each token; if it is a name, the name in its quotes and the first character of its value."""
    # Without escaped quotes, every quote begins or ends a string. The length stays.
    plain = body.replace(b"\\\\", b"..").replace(b'\\"', b"..")
    for token in _TOKEN.finditer(plain):
        start, end = token.span()
        if end - start > 1 and (colon := _COLON.match(plain, end)):
            yield b'"', body[start:end], colon[1]
        else:
            yield plain[start : start + 1], b"", b""


def _decoded(name: bytes) -> str:
    try:
        text: str = orjson.loads(name)
    except orjson.JSONDecodeError:  # Half a surrogate pair, or not valid JSON at all.
        return name[1:-1].decode("utf-8", "replace")
    return text


# What clients send instead of JSON in UTF-8.

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_MULTIPART = re.compile(rb"--[^\r\n]{1,200}\r?\ncontent-disposition:", re.IGNORECASE)
_FORM = re.compile(rb"[\w.%+\[\]-]{1,200}=")


def probable_format(body: bytes) -> str | None:
    """What a body that is not valid JSON is, and what to send; None: JSON with a mistake."""
    if body.startswith(_UTF_16) or b"\0" in body[:4]:
        return "it is in UTF-16 or UTF-32 (charset); send JSON in UTF-8"
    if _MULTIPART.match(body):
        return "it is a multipart/form-data form; send JSON, with content-type: application/json"
    if _FORM.match(body):
        return (
            "it is a form (application/x-www-form-urlencoded); send JSON, with content-type: "
            "application/json"
        )
    try:
        body.decode()
    except UnicodeDecodeError as problem:
        charset = _charset(body[problem.start : problem.start + 65_536])
        return f"{charset} (byte {problem.start:,} is not UTF-8); send JSON in UTF-8"
    return None


def _charset(text: bytes) -> str:
    """A guess, from the first bytes that are not UTF-8."""
    try:
        codecs.getincrementaldecoder("gb18030")().decode(text)
    except UnicodeDecodeError:
        return "it is in another charset, such as Latin-1"
    return "it is in another charset, such as GBK"
