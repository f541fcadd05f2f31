"""JSON bodies: tolerant parsing, limits before anything expensive, and complaints in sentences."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar, TypeVarTuple

import orjson
from fastapi import Response
from pydantic import BaseModel, ValidationError

from rankd.config.text import replace_surrogates, shorten
from rankd.dialects.json_values import MAX_FIELDS, refuse_many_fields, short_json, type_name
from rankd.dialects.missing_fields import unknown_fields_hint
from rankd.dialects.refused_bodies import field_twice, probable_format
from rankd.errors import InvalidRequest, TooLarge, UnsupportedMedia
from rankd.telemetry import metrics

Model = TypeVar("Model", bound=BaseModel)
Args = TypeVarTuple("Args")
Result = TypeVar("Result")


class JsonResponse(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


# Bodies as objects.

# Values in a body. Ten million empty lists would take a gigabyte; clients send far fewer than
# this. Where more documents are allowed, ten each.
_MAX_VALUES = 500_000

# A larger body is read and validated in a thread. The slowest shape of this size, nothing but
# empty arrays, takes 15 ms; handing a body over takes 0.1 ms.
MAX_INLINE_BYTES = 64 * 1024

# One thread each, so that large bodies leave the event loop its part of the interpreter's time.
# Two, because the largest bodies take seconds, for which others would wait.
_thread = ThreadPoolExecutor(1, "bodies")
_slow_thread = ThreadPoolExecutor(1, "large-bodies")
_MAX_QUICK_BYTES = 1024 * 1024


async def in_thread(size: int, function: Callable[[*Args], Result], *args: *Args) -> Result:
    """Run a function on a large body without blocking the event loop; raises what it raises.

    Its log lines carry the id of the request.

    Args:
        size: bytes of the body.
    """
    thread = _thread if size <= _MAX_QUICK_BYTES else _slow_thread
    run = partial(copy_context().run, function, *args)
    return await asyncio.get_running_loop().run_in_executor(thread, run)


def read_object(body: bytes, max_items: int) -> dict[str, Any]:
    """The body as a JSON object, whatever its content type. Linear time in every shape.

    Args:
        max_items: limit of every list, checked before the items are validated one by one.

    Raises:
        InvalidRequest: the body is not a JSON object, or an object in it has a field twice.
        TooLarge: a list has more items, or the body has too many values in all.
    """
    _refuse_many_values(body, max(_MAX_VALUES, 10 * max_items))
    value = parse(body)
    if not isinstance(value, dict):
        raise InvalidRequest(f"the body must be a JSON object, not {type_name(value)}")
    if len(value) > MAX_FIELDS:
        refuse_many_fields(value, "the body")
    refuse_long_lists(value, max_items)
    _refuse_duplicates(value, body)
    return value


def read_object_or_array(body: bytes, max_items: int, name: str) -> dict[str, Any]:
    """As `read_object`; an array is read as the field `name` of an object."""
    if not body.lstrip(_BYTE_ORDER_MARK + b" \t\r\n").startswith(b"["):
        return read_object(body, max_items)
    value = read_object(
        b'{"%s":%s}' % (name.encode(), body.removeprefix(_BYTE_ORDER_MARK)), max_items
    )
    if len(value) > 1:
        raise InvalidRequest("the body is not valid JSON: something follows the array")
    return value


def _refuse_many_values(body: bytes, limit: int) -> None:
    """Counts values before the body is parsed, by the character in front of each."""
    if _separators(body) <= limit:
        return
    # Some of these characters stand in strings. Without escaped quotes, every quote that is
    # left begins or ends a string, so every other part between quotes is outside strings.
    unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    strings = unescaped.count(b'"') // 2
    if strings > 2 * limit or _separators(b"".join(unescaped.split(b'"')[::2])) > limit:
        raise TooLarge(f"the body has more than {limit:,} values; send them in several requests")


def _separators(body: bytes) -> int:
    return body.count(b",") + body.count(b"[") + body.count(b"{")


def refuse_long_lists(body: Mapping[str, Any], limit: int, path: str = "") -> None:
    """Raises `TooLarge` if a list in a body, or in an object of it, has more than `limit` items."""
    for name, value in body.items():
        if isinstance(value, list) and len(value) > limit:
            field = path + shorten(name)
            metrics.REFUSED.labels("request_documents").inc()
            raise TooLarge(
                f"{len(value):,} {field} in one request; the limit is {limit:,}", param=field
            )
        if isinstance(value, dict) and not path:
            refuse_many_fields(value, shorten(name))
            refuse_long_lists(value, limit, f"{shorten(name)}.")


# The end of a name: a quote that is not escaped, and a colon. Quotes in strings are escaped.
_NAME_END = re.compile(rb'"(?<!\\")\s*:')

# Bytes that are searched at a time: other threads wait meanwhile.
_SEARCHED_BYTES = 1024 * 1024


def _refuse_duplicates(body: dict[str, Any], raw: bytes) -> None:
    """A field that stands twice: parsers keep one of the values, which may be the wrong one."""
    # As many names in the bytes as fields were parsed: none of them stands twice.
    names = _count_names(raw)
    if names == len(body) or names == sum(_count_fields(level) for level in _levels(body)):
        return
    if name := field_twice(raw):
        name = shorten(name)
        raise InvalidRequest(f"{name} stands twice in one object; send it once", param=name)


def _count_names(raw: bytes) -> int:
    count = start = 0
    while start < len(raw):
        # Up to a quote, so that no match begins in one part and ends in the next.
        end = raw.find(b'"', start + _SEARCHED_BYTES)
        end = len(raw) if end < 0 else end
        count += len(_NAME_END.findall(raw, start, end))
        start = end
    return count


def _count_fields(nodes: Iterable[Any]) -> int:
    return sum([len(node) for node in nodes if isinstance(node, dict)])


# Parsing.

_GZIP = b"\x1f\x8b"

# Windows puts this before texts in UTF-8.
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# Levels of arrays and objects in a body; no dialect has ten. orjson writes at most 254, and an
# answer that repeats a document may hold it deeper than the request did.
_MAX_DEPTH = 64


def parse(body: bytes) -> Any:
    """JSON in UTF-8, in a form that an answer can repeat.

    Raises:
        InvalidRequest: it is not JSON, or nested too deep.
        UnsupportedMedia: it is compressed.
    """
    if not body.removeprefix(_BYTE_ORDER_MARK).strip():
        raise InvalidRequest("the body is empty; send a JSON object")
    if body.startswith(_GZIP):
        raise UnsupportedMedia("the body is compressed; send plain JSON")
    try:
        return loads(body, max_depth=_MAX_DEPTH)
    except orjson.JSONDecodeError as problem:
        reason = probable_format(body) or (
            f"{problem.msg[0].lower()}{problem.msg[1:]} "
            f"(line {problem.lineno}, column {problem.colno})"
        )
        raise InvalidRequest(f"the body is not valid JSON: {reason}") from None


def loads(text: bytes, max_depth: int | None = None) -> Any:
    """JSON in UTF-8; a byte order mark is skipped, lone surrogates are replaced.

    orjson refuses half a surrogate pair ("\\ud83d"), which JavaScript's splitters send
    whenever they cut an emoji in two. The standard library accepts it.

    Raises:
        orjson.JSONDecodeError: it is not JSON.
        InvalidRequest: it has more than `max_depth` levels; None: no limit.
    """
    text = text.removeprefix(_BYTE_ORDER_MARK)
    try:
        value = orjson.loads(text)
        _refuse_deep(value, text, max_depth)
        return value
    except orjson.JSONDecodeError as problem:
        first = problem
    try:
        value = json.loads(text.decode(), parse_constant=_refuse_constant, parse_int=_parse_integer)
        _refuse_deep(value, text, max_depth)
        return _without_surrogates(value)
    except (ValueError, RecursionError):
        raise first from None


def _parse_integer(digits: str) -> int | float:
    """As orjson does, which cannot write longer integers."""
    value = int(digits)
    return value if -(2**63) <= value < 2**64 else float(digits)


def _refuse_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are Python's, not JSON's.


def _refuse_deep(value: Any, text: bytes, max_depth: int | None) -> None:
    """Lets later code walk through a body recursively."""
    # Most bodies have fewer brackets than levels are allowed.
    if max_depth is None or text.count(b"[") + text.count(b"{") <= max_depth:
        return
    for depth, _ in enumerate(_levels(value), 1):
        if depth > max_depth:
            raise _too_deep()


def _levels(value: Any) -> Iterator[list[Any]]:
    """The arrays and objects of a value, level by level from the outermost."""
    level = [value] if isinstance(value, dict | list) else []
    while level:
        yield level
        level = [
            item
            for node in level
            for item in (node.values() if isinstance(node, dict) else node)
            if isinstance(item, dict | list)
        ]


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"the body is nested more than {_MAX_DEPTH} levels deep")


def _without_surrogates(value: Any) -> Any:
    match value:
        case str():
            return replace_surrogates(value)
        case list():
            return [_without_surrogates(item) for item in value]
        case dict():
            return {
                replace_surrogates(key): _without_surrogates(item) for key, item in value.items()
            }
    return value


# Validation.


def validate(model: type[Model], body: Mapping[str, Any]) -> Model:
    """The body as a pydantic model.

    Raises:
        InvalidRequest: a field is missing or has a wrong value; names the first such field.
    """
    try:
        return model.model_validate(body)
    except ValidationError as problem:
        raise _complaint(problem, model) from None


def _complaint(problem: ValidationError, model: type[BaseModel]) -> InvalidRequest:
    error = problem.errors(include_url=False)[0]
    path = _path(error["loc"])
    value = error["input"]
    match error["type"]:
        case "missing":
            sentence = f"{path} is missing{unknown_fields_hint(model, error['loc'], value)}"
        case "value_error":
            sentence = f"{path} {error['ctx']['error']}"
        case "string_type":
            sentence = f"{path} must be a string, not {type_name(value)}"
        case "model_type" | "dict_type":
            sentence = f"{path} must be an object, not {type_name(value)}"
        case "list_type":
            sentence = f"{path} must be an array, not {type_name(value)}"
        case "bool_type" | "bool_parsing":
            sentence = f"{path} must be true or false, not {type_name(value)}"
        case "float_type" | "float_parsing" | "finite_number":
            sentence = f"{path} must be a number, not {type_name(value)}"
        case "int_type" | "int_parsing" | "int_from_float" | "int_parsing_size":
            sentence = f"{path} must be an integer, not {type_name(value)}"
        case _:
            reason = error["msg"][0].lower() + error["msg"][1:]
            sentence = f"{path}: {reason}, got {short_json(value)}"
    return InvalidRequest(sentence, param=path or None)


def _path(location: tuple[int | str, ...]) -> str:
    """`documents[3].text`"""
    return "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in location
    ).removeprefix(".")
