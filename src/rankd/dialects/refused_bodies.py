"""Bodies that cannot be read: which API they are in, and what they are instead of JSON in UTF-8."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

# Strings, and the characters that open and close arrays and objects. A string without an end
# matches, too; the possessive quantifiers keep that linear.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[][{}]', re.DOTALL)

# What follows a name: its colon, and the first character of its value.
_COLON = re.compile(rb"\s*:\s*(.?)", re.DOTALL)

# Tokens that are looked at, in some 50 ms. A string is one token, whatever its length.
_MAX_TOKENS = 200_000

# Values of the right kind, by their first character; any other is a number or a text.
_VALUES: dict[bytes, Any] = {b"[": [], b"{": {}, b"t": True, b"f": False, b"n": None}


def outline(body: bytes) -> dict[str, Any]:
    """The top-level fields of a body that was refused, to find its dialect.

    Returns:
        Names, each with an empty value of the right kind. Of a body with very many values only
        the first fields, of one that is no object none.
    """
    return dict(_fields(body)) if body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" else {}


def _fields(body: bytes) -> Iterator[tuple[str, Any]]:
    depth = 0
    for token in islice(_TOKEN.finditer(body), _MAX_TOKENS):
        text = token[0]
        if text in b"[{":
            depth += 1
        elif text in b"]}":
            depth -= 1
        elif depth == 1 and (colon := _COLON.match(body, token.end())):
            yield text[1:-1].decode("utf-8", "replace"), _VALUES.get(colon[1], "")


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
        return f"{_charset(body)} (byte {problem.start:,} is not UTF-8); send JSON in UTF-8"
    return None


def _charset(body: bytes) -> str:
    try:
        body.decode("gb18030")
    except UnicodeDecodeError:
        return "it is in another charset, such as Latin-1"
    return "it is in another charset, such as GBK"
