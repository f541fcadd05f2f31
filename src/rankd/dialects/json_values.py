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


def short_json(value: Any) -> str:
    """The value as JSON, at most 60 characters of it."""
    return shorten(json.dumps(value, ensure_ascii=False, default=str))
