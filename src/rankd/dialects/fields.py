"""Types of request fields, and how texts are read from what clients send."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, get_args

import orjson
from pydantic import BeforeValidator, WithJsonSchema

from rankd.dialects.json_values import refuse_many_fields, type_name
from rankd.dialects.text_objects import text_of
from rankd.errors import InvalidRequest
from rankd.types import Truncation

# Texts.


def query_of(value: Any) -> str:
    """The text of a query. Raises `ValueError` if it is blank, or as `text_of`."""
    text = value if type(value) is str and value[4:5] != ":" else text_of(value)
    if not text.strip():
        raise ValueError("must not be empty")
    return text


class NoTexts(InvalidRequest):
    """The array of documents is empty."""


def texts_of(values: Sequence[Any], name: str, fields: Sequence[str] = ()) -> tuple[str, ...]:
    """The text of each value.

    Args:
        name: of the field, for messages.
        fields: as of `text_of`.

    Raises:
        NoTexts: there are no values.
        InvalidRequest: one has no text; names its index.
    """
    if not values:
        raise NoTexts(f"{name} must not be empty", param=name)
    read = partial(text_of, fields=fields) if fields else text_of
    # Of most strings it is clear at the fifth character that they are no data: URL.
    return tuple(
        value
        if type(value) is str and value[4:5] != ":"
        else text_at(value, f"{name}[{index}]", read)
        for index, value in enumerate(values)
    )


def echo(value: Any, text: str) -> dict[str, Any]:
    """A document as answers repeat it: an object with `text`, other fields kept."""
    return {**value, "text": text} if isinstance(value, dict) else {"text": text}


def text_at(value: Any, path: str, read: Callable[[Any], str] = text_of) -> str:
    """The text at a path of the body, such as `documents[3]`.

    Raises:
        InvalidRequest: it has no text; names the path.
        TooLarge: it has too many fields.
    """
    refuse_many_fields(value, path)
    try:
        return read(value)
    except ValueError as problem:
        raise InvalidRequest(f"{path} {problem}", param=path) from None


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


# One of these marks an object as a document; `{"0": "a", "1": "b"}` is PHP's array of two.
_DOCUMENT_FIELDS = frozenset({"text", "content", "type"})


def _as_list(value: Any) -> Any:
    if isinstance(value, str):
        refuse_json_array(value)
        return [value]
    if isinstance(value, dict) and not _DOCUMENT_FIELDS.isdisjoint(value):
        return [value]
    return value


def refuse_json_array(text: str) -> None:
    """Raises `ValueError` if one document is an array of documents as JSON text."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return
    if value and all(isinstance(item, str | dict) for item in value):
        raise ValueError(
            "is a string that holds a JSON array: send the array itself, or the string in an "
            "array to rank it as one document"
        )


# Documents, or one of them for a list of one.
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
