"""What clients send where a text is meant, and what they mean by true and by three."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, WithJsonSchema

from rankd.errors import InvalidRequest, TooLarge
from rankd.types import Truncation


def text_of(value: Any, fields: Sequence[str] = ()) -> str:
    """A text, or what an object holds of one.

    Args:
        fields: of an object only these, in this order. Otherwise its `text`, or its
            `content` as chat messages have it, or all of it.

    Raises:
        ValueError: there is no text in it; the message continues a sentence about the field.
    """
    match value:
        case str():
            return value
        case dict() if fields:
            return _chosen(value, fields)
        case dict() if isinstance(text := value.get("text"), str):
            return text  # As nearly always; a pattern of keys would take three times as long.
        case {"text": other}:
            raise ValueError(f"must hold its text as a string in `text`, not {type_name(other)}")
        case {"content": content}:
            return _content(content)
        case dict() if value:
            return _lines(value, value)
        case dict():
            raise ValueError("must not be an empty object")
    raise ValueError(f"must be a string or an object with `text`, not {type_name(value)}")


def query_of(value: Any) -> str:
    """A text with something in it."""
    text = text_of(value)
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def texts_of(values: Sequence[Any], name: str, fields: Sequence[str] = ()) -> tuple[str, ...]:
    """Every value's text; nearly always they are strings already.

    Raises:
        InvalidRequest: one has no text, or there are none; names the place under `name`.
    """
    if not values:
        raise InvalidRequest(f"{name} must not be empty", param=name)
    return tuple(
        value if type(value) is str else _text_at(value, name, place, fields)
        for place, value in enumerate(values)
    )


def echo(value: Any, text: str) -> dict[str, Any]:
    """A document as answers repeat it: an object that has `text`."""
    return {**value, "text": text} if isinstance(value, dict) else {"text": text}


def _text_at(value: Any, name: str, place: int, fields: Sequence[str]) -> str:
    refuse_many_fields(value, f"{name}[{place}]")
    try:
        return text_of(value, fields)
    except ValueError as problem:
        path = f"{name}[{place}]"
        raise InvalidRequest(f"{path} {problem}", param=path) from None


# A million of them would hold up everyone else while they are named or repeated.
_MOST_FIELDS = 10_000


def refuse_many_fields(value: Any, path: str) -> None:
    """Raises `TooLarge` when an object has more fields than anyone means."""
    if isinstance(value, dict) and len(value) > _MOST_FIELDS:
        raise TooLarge(
            f"{path} has {len(value):,} fields; the limit is {_MOST_FIELDS:,}", param=path
        )


def _chosen(value: dict[str, Any], fields: Sequence[str]) -> str:
    fields = tuple(dict.fromkeys(fields))  # A thousand times the name, not the text.
    present = [field for field in fields if value.get(field) is not None]
    if not present:
        raise ValueError(f"has none of the rank_fields {', '.join(map(repr, fields))}")
    if len(fields) == 1:
        alone = value[present[0]]
        return alone if isinstance(alone, str) else _alone(alone)
    return _lines(value, present)


def _lines(value: dict[str, Any], fields: Iterable[str]) -> str:
    """As Cohere documents it: what `yaml.dump(sort_keys=False)` writes, in the order given.

    But words stay as they are, without the quotes and breaks that YAML's syntax may ask for.
    The lines of a text are set in, so that none of them passes for a field.
    """
    chosen = {field: value[field] for field in fields}
    return _block(chosen, _is_much(chosen))


def _alone(value: Any) -> str:
    return _json(value) if _is_much([value]) else _block(value, much=False)


# Values and lines inside of values, beyond which those are written as JSON, which is YAML, too:
# blocks are made piece by piece, and everyone else waits meanwhile.
_MOST_INSIDE = 1_000


def _is_much(value: dict[str, Any] | list[Any]) -> bool:
    """Whether there is too much inside a value's values to write all of it as blocks."""
    count = 0
    level: list[Any] = [value]
    while level := [one for node in level for one in _inside(node) if isinstance(one, dict | list)]:
        count += sum(map(len, level))
        if count > _MOST_INSIDE:
            return True
        texts = (one for node in level for one in _inside(node) if isinstance(one, str))
        count += sum(text.count("\n") + text.count("\r") for text in texts)
    return count > _MOST_INSIDE


def _inside(node: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return node.values() if isinstance(node, dict) else node


def _block(value: Any, much: bool) -> str:
    match value:
        case dict() if value:
            return "\n".join(_field(name, one, much) for name, one in value.items())
        case list() if value:
            return "\n".join(_item(one, much) for one in value)
        case str():
            # As a whole: a text may have millions of lines.
            text = value.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")
            return f"|-\n{_set_in(text)}" if "\n" in text else text
    return _json(value)


def _field(name: str, value: Any, much: bool) -> str:
    """`name: value`; a list or an object under its name, an object's fields set in."""
    name = name if len(name.splitlines()) == 1 else _json(name)
    match value:
        case dict() | list() if value and much:
            return f"{name}: {_json(value)}"
        case dict() if value:
            return f"{name}:\n{_set_in(_block(value, much))}"
        case list() if value:
            return f"{name}:\n{_block(value, much)}"
    return f"{name}: {_block(value, much)}"


def _item(value: Any, much: bool) -> str:
    """`- value`, all of it behind the dash."""
    if much and isinstance(value, dict | list):
        return f"- {_json(value)}"
    return f"- {_set_in(_block(value, much)).removeprefix('  ')}"


def _set_in(block: str) -> str:
    return "  " + block.replace("\n", "\n  ").replace("  \n", "\n")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _content(content: Any) -> str:
    """A chat message's content: a string, or blocks of which each must be text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise ValueError(f"must hold blocks in `content`, not {type_name(content)}")
    if len(content) > _MOST_FIELDS:
        raise ValueError(f"has {len(content):,} blocks; the limit is {_MOST_FIELDS:,}")
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


def _not_a_boolean(value: Any) -> Any:
    # Pydantic would read true as 1.
    if isinstance(value, bool):
        raise ValueError(f"must be an integer, not {type_name(value)}")
    return value


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"must be a number, not {type_name(value)}")
    return value


TEXT: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "minProperties": 1,
            "properties": {
                "text": {
                    "type": "string",
                    "description": "What is read; the other fields, or `content`, when absent.",
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

# Kept as they came, because some answers repeat them; `texts_of` reads them.
# The limit is the server's: `schema.py` puts it in.
Documents = Annotated[list[Any], WithJsonSchema(LIST)]

# One text or many, as they came.
Side = Annotated[Any, WithJsonSchema({"anyOf": [*TEXT["anyOf"], LIST]})]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


# One text may stand for an array of one.
DocumentList = Annotated[Documents, BeforeValidator(_listed)]

Count = Annotated[int, BeforeValidator(_not_a_boolean)]
Number = Annotated[float, BeforeValidator(_no_boolean)]


_SWITCHES = {"true": "cut", "false": "refuse"}


def _truncating(value: Any) -> Any:
    """Voyage's booleans, which some clients send as text, and our own words."""
    said = str(value).lower() if isinstance(value, bool | str) else None
    word = _SWITCHES.get(said or "", said)
    if word not in get_args(Truncation):
        raise ValueError(f"must be 'cut', 'refuse', 'chunk', true or false, not {type_name(value)}")
    return word


# What becomes of documents that do not fit.
Truncating = Annotated[
    Truncation,
    BeforeValidator(_truncating),
    WithJsonSchema({"enum": ["cut", "refuse", "chunk", True, False]}),
]


def is_switch(value: Any) -> bool:
    """Whether it is a boolean, or a text that stands for one."""
    return isinstance(value, bool) or (isinstance(value, str) and value.lower() in _SWITCHES)


def type_name(value: Any) -> str:
    """What a JSON value is, in words a caller knows."""
    match value:
        case None:
            return "null"
        case bool():
            return f"a boolean ({shorten(value)})"
        case int() | float():
            return f"a number ({shorten(value)})"
        case str():
            return f"a string ({shorten(value)})"
        case list():
            return "an array"
    return "an object"


def shorten(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
