"""Values from JSON bodies: their names in messages, and a bound on the fields of an object."""

from __future__ import annotations

import json
from typing import Any

from rankd.config.text import shorten
from rankd.errors import TooLarge

# A million fields would block the event loop while they are named or repeated.
MAX_FIELDS = 10_000


def refuse_many_fields(value: Any, path: str) -> None:
    """Raises `TooLarge` if an object has more than 10,000 fields."""
    if isinstance(value, dict) and len(value) > MAX_FIELDS:
        raise TooLarge(f"{path} has {len(value):,} fields; the limit is {MAX_FIELDS:,}", param=path)


def type_name(value: Any) -> str:
    """The JSON type of a value, with the value if it is a short one: `a number (3)`."""
    match value:
        case None:
            return "null"
        case bool():
            return f"a boolean ({short_json(value)})"
        case int() | float():
            return f"a number ({short_json(value)})"
        case str():
            return f"a string ({short_json(value)})"
        case list():
            return "an array"
    return "an object"


_ENCODER = json.JSONEncoder(ensure_ascii=False, default=str)


def short_json(value: Any) -> str:
    """The value as JSON, at most 60 characters of it; reads no more of it than that."""
    text = ""
    for part in _ENCODER.iterencode(value[:100] if isinstance(value, str) else value):
        text += part
        if len(text) > 100:
            break
    return shorten(text)
