"""Types of request fields, and how texts are read from what clients send."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, WithJsonSchema

from rankd.config.text import shorten
from rankd.dialects.yaml_blocks import yaml_lines, yaml_value
from rankd.errors import InvalidRequest, TooLarge
from rankd.types import Truncation

# Texts.


def text_of(value: Any, fields: Sequence[str] = ()) -> str:
    """The text of a string or an object.

    Args:
        fields: read only these fields of an object, in this order. Default: its `text`, else
            its `content` as in chat messages, else all fields.

    Raises:
        ValueError: it has no text; the message continues a sentence that begins with the field.
    """
    match value:
        case str():
            return value
        case dict() if fields:
            return _chosen(value, fields)
        case dict() if isinstance(text := value.get("text"), str):
            return text  # The usual case; a mapping pattern would take three times as long.
        case {"text": other}:
            raise ValueError(f"must hold its text as a string in `text`, not {type_name(other)}")
        case {"content": content}:
            return _content(content)
        case dict() if value:
            return yaml_lines(value, value)
        case dict():
            raise ValueError("must not be an empty object")
    raise ValueError(f"must be a string or an object with `text`, not {type_name(value)}")


def query_of(value: Any) -> str:
    """The text of a query. Raises `ValueError` if it is blank, or as `text_of`."""
    text = value if type(value) is str else text_of(value)
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def texts_of(values: Sequence[Any], name: str, fields: Sequence[str] = ()) -> tuple[str, ...]:
    """The text of each value.

    Args:
        name: of the field, for messages.
        fields: as of `text_of`.

    Raises:
        InvalidRequest: there are no values, or one has no text; names its index.
    """
    if not values:
        raise InvalidRequest(f"{name} must not be empty", param=name)
    return tuple(
        value if type(value) is str else _text_at(value, name, index, fields)
        for index, value in enumerate(values)
    )


def echo(value: Any, text: str) -> dict[str, Any]:
    """A document as answers repeat it: an object with `text`, other fields kept."""
    return {**value, "text": text} if isinstance(value, dict) else {"text": text}


def _text_at(value: Any, name: str, index: int, fields: Sequence[str]) -> str:
    path = f"{name}[{index}]"
    refuse_many_fields(value, path)
    try:
        return text_of(value, fields)
    except ValueError as problem:
        raise InvalidRequest(f"{path} {problem}", param=path) from None


# A million fields would block the event loop while they are named or repeated.
MAX_FIELDS = 10_000


def refuse_many_fields(value: Any, path: str) -> None:
    """Raises `TooLarge` if an object has more than 10,000 fields."""
    if isinstance(value, dict) and len(value) > MAX_FIELDS:
        raise TooLarge(f"{path} has {len(value):,} fields; the limit is {MAX_FIELDS:,}", param=path)


def _chosen(value: dict[str, Any], fields: Sequence[str]) -> str:
    fields = tuple(dict.fromkeys(fields))  # A name sent a thousand times reads one text.
    present = [field for field in fields if value.get(field) is not None]
    if not present:
        raise ValueError(f"has none of the rank_fields {', '.join(map(repr, fields))}")
    if len(fields) == 1:
        only = value[present[0]]
        return only if isinstance(only, str) else yaml_value(only)
    return yaml_lines(value, present)


def _content(content: Any) -> str:
    """The content of a chat message: a string, or blocks that are all text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise ValueError(f"must hold blocks in `content`, not {type_name(content)}")
    if len(content) > MAX_FIELDS:
        raise ValueError(f"has {len(content):,} blocks; the limit is {MAX_FIELDS:,}")
    texts = []
    for block in content:
        match block:
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case {"type": str(other)} if other != "text":
                raise ValueError(f"has a block of type {other!r}; this model reads text only")
            case _:
                raise ValueError("must hold its text in blocks of type 'text'")
    return "\n".join(texts)


# Schemas of texts.

TEXT: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "minProperties": 1,
            "properties": {
                "text": {
                    "type": "string",
                    "description": "The text. Default: `content`, or else all fields.",
                }
            },
        },
    ]
}
LIST: dict[str, Any] = {"type": "array", "items": TEXT, "minItems": 1, "x-limit": "max_documents"}

SAYING: dict[str, Any] = {
    "type": "string",
    "minLength": 1,
    "pattern": r"\S",
    "description": "A text that is not blank.",
}

Query = Annotated[
    str,
    BeforeValidator(query_of),
    WithJsonSchema(
        {
            "anyOf": [
                SAYING,
                {"type": "object", "properties": {"text": SAYING}, "required": ["text"]},
            ]
        }
    ),
]

# Documents stay as they were sent, because some answers repeat them; `texts_of` reads them.
# `openapi.py` replaces `x-limit` by the server's limit.
Documents = Annotated[list[Any], WithJsonSchema(LIST)]

# One text or a list, as it was sent.
Side = Annotated[Any, WithJsonSchema({"anyOf": [*TEXT["anyOf"], LIST]})]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


# Documents, or one string for a list of one.
DocumentList = Annotated[Documents, BeforeValidator(_as_list)]


# Numbers and switches.


def _not_a_boolean(kind: str) -> BeforeValidator:
    """Refuses booleans, which pydantic would read as 0 and 1."""

    def check(value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError(f"must be {kind}, not {type_name(value)}")
        return value

    return BeforeValidator(check)


Count = Annotated[int, _not_a_boolean("an integer")]
Number = Annotated[float, _not_a_boolean("a number")]


_SWITCHES = {"true": "cut", "false": "refuse"}


def _truncation(value: Any) -> Any:
    """rankd's words, or Voyage's booleans, which some clients send as text."""
    word = str(value).lower() if isinstance(value, bool | str) else None
    word = _SWITCHES.get(word or "", word)
    if word not in get_args(Truncation):
        raise ValueError(f"must be 'cut', 'refuse', 'chunk', true or false, not {type_name(value)}")
    return word


# What is done with documents that do not fit.
Truncating = Annotated[
    Truncation,
    BeforeValidator(_truncation),
    WithJsonSchema({"enum": ["cut", "refuse", "chunk", True, False]}),
]


def is_switch(value: Any) -> bool:
    """Whether it is a boolean, or a text that stands for one."""
    return isinstance(value, bool) or (isinstance(value, str) and value.lower() in _SWITCHES)


# Values in messages.


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
