"""What clients send where a text is meant."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BeforeValidator


def text_of(value: Any) -> str:
    """A text, or an object that holds one.

    Raises:
        ValueError: it is neither; the message continues a sentence about the field.
    """
    match value:
        case str():
            return value
        case {"text": str(text)}:
            return text
        case dict():
            raise ValueError("must hold its text as a string in `text`")
    raise ValueError(f"must be a string or an object with `text`, not {kind(value)}")


def query_of(value: Any) -> str:
    """A text with something in it."""
    text = text_of(value)
    if not text.strip():
        raise ValueError("must not be empty")
    return text


Text = Annotated[str, BeforeValidator(text_of)]
Query = Annotated[str, BeforeValidator(query_of)]


def kind(value: Any) -> str:
    """What a JSON value is, in words a caller knows."""
    match value:
        case None:
            return "null"
        case bool():
            return f"a boolean ({short(value)})"
        case int() | float():
            return f"a number ({short(value)})"
        case str():
            return f"a string ({short(value)})"
        case list():
            return "an array"
    return "an object"


def short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
