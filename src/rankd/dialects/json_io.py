"""What every dialect needs of JSON: read it tolerantly, complain in sentences, write floats."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import orjson
from fastapi import Response
from pydantic import BaseModel, ValidationError

from rankd.dialects.fields import refuse_many_fields, shorten, type_name
from rankd.errors import InvalidRequest, TooLarge, UnsupportedMedia
from rankd.telemetry import metrics
from rankd.types import RankUsage, ScoredDocument

Model = TypeVar("Model", bound=BaseModel)


class JsonResponse(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


_GZIP = b"\x1f\x8b"

# What Windows puts before a text in UTF-8.
_MARK = b"\xef\xbb\xbf"

# Levels of arrays and objects in a body; no dialect has ten. orjson writes 254, and an answer
# that repeats a document may hold it deeper than the request did.
_DEEPEST = 64


# Values of a body: no client sends nearly as many, and ten million empty lists would take a
# gigabyte and keep everyone waiting for half a minute. Where more documents are allowed, ten each.
_MOST_VALUES = 500_000


def read_object(body: bytes, most: int) -> dict[str, Any]:
    """The body as a JSON object; the content type is not asked for.

    Args:
        most: items that any list may have. Looked at first, because judging millions of
            them one by one would hold up everyone else.

    Raises:
        InvalidRequest: the body is not a JSON object.
        TooLarge: a list is longer than `most`, or there are too many values in all.
    """
    _refuse_many_values(body, max(_MOST_VALUES, 10 * most))
    value = parse(body)
    if not isinstance(value, dict):
        raise InvalidRequest(f"the body must be a JSON object, not {type_name(value)}")
    refuse_many_fields(value, "the body")
    refuse_long_lists(value, most)
    _refuse_duplicates(value, body)
    return value


def _refuse_many_values(body: bytes, most: int) -> None:
    """Before it is parsed, by counting what stands before each value."""
    if _separators(body) <= most:
        return
    # Some of them stand in texts, so those are taken out: by now each quote is one of JSON's own.
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    strings = plain.count(b'"') // 2
    if strings > 2 * most or _separators(b"".join(plain.split(b'"')[::2])) > most:
        raise TooLarge(f"the body has more than {most:,} values")


def _separators(body: bytes) -> int:
    return body.count(b",") + body.count(b"[") + body.count(b"{")


def refuse_long_lists(body: Mapping[str, Any], most: int, path: str = "") -> None:
    """Raises `TooLarge` when a list of a body, or of an object in it, is longer than `most`."""
    for name, value in body.items():
        if isinstance(value, list) and len(value) > most:
            field = path + short_name(name)
            metrics.REFUSED.labels("request_documents").inc()
            raise TooLarge(
                f"{len(value):,} {field} in one request; the limit is {most:,}", param=field
            )
        if isinstance(value, dict) and not path:
            refuse_many_fields(value, short_name(name))
            refuse_long_lists(value, most, f"{short_name(name)}.")


# What may be the name of a field: one pass over the bytes, from quote to quote. Bounded, so
# that long texts without a space are not read twice; no dialect has a longer name.
_NAMES = re.compile(rb'"([\w\x80-\xff]{1,64})"\s*:')


def _refuse_duplicates(body: dict[str, Any], raw: bytes) -> None:
    """A field that stands twice would be half ignored; nobody can say which half was meant."""
    # A name that stands once in the bytes stands once as a field. Otherwise it may be a
    # field of a document, or look like one in a text, so the slow way has the last word.
    counts = Counter(_NAMES.findall(raw))
    if any(counts[name.encode()] > 1 for name in body if name.isidentifier()):
        try:
            json.loads(raw, object_pairs_hook=_once)
        except RecursionError:  # In a value that a later one of its name hides.
            raise _too_deep() from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in fields if names.count(name) > 1)
        raise InvalidRequest(f"{short_name(name)} stands twice in one object", param=name)
    return fields


def validate(model: type[Model], body: Mapping[str, Any]) -> Model:
    """The fields as a request of one dialect.

    Raises:
        InvalidRequest: they are not what the dialect expects; names the field.
    """
    try:
        return model.model_validate(body)
    except ValidationError as problem:
        raise _complaint(problem) from None


def unknown_fields(request: BaseModel, dialect: str) -> list[str]:
    """Warnings that name the fields nobody here knows; they are counted, too."""
    names = sorted(_extras(request))
    if names:
        metrics.UNKNOWN_FIELDS.labels(dialect).inc(len(names))
    return [f"unknown field {short_name(name)!r} was ignored" for name in names[:20]]


def _extras(model: BaseModel, path: str = "") -> Iterator[str]:
    for name in model.model_extra or ():
        yield path + name
    for name, value in model:
        if isinstance(value, BaseModel):
            yield from _extras(value, f"{path}{name}.")


def truncation_warnings(results: Iterable[ScoredDocument]) -> list[str]:
    """Which documents were cut, and by how much."""
    return [
        f"document {result.index} was cut from {'more than ' if result.longer else ''}"
        f"{result.document_tokens} to {result.kept_tokens} tokens"
        for result in results
        if result.truncated
    ]


def below_threshold_warning(left_out: int, count: int, threshold: float) -> list[str]:
    """What a threshold took away that the caller did not send."""
    if not left_out:
        return []
    return [
        f"{left_out} of {count} documents scored below {threshold:g}, the threshold configured "
        "here, and are left out; send a score_threshold of your own to see them"
    ]


# Runs of documents that one warning names.
_NAMED = 100


def not_scored_warning(places: Sequence[int], count: int) -> list[str]:
    """Which of so many documents were not scored in time."""
    if not places:
        return []
    runs = _runs(places)
    named = ", ".join(runs[:_NAMED]) + (", ..." if len(runs) > _NAMED else "")
    return [f"{len(places)} of {count} documents were not scored in time: {named}"]


def _runs(places: Sequence[int]) -> list[str]:
    """`[3, 5, 6, 7]` → `3`, `5-7`."""
    runs: list[list[int]] = []
    for place in places:
        if runs and place == runs[-1][1] + 1:
            runs[-1][1] = place
        else:
            runs.append([place, place])
    return [f"{first}-{last}" if last > first else f"{first}" for first, last in runs]


# Warnings in a header: as many as any proxy lets through.
_SHOWN = 5


def warning_header(warnings: Sequence[str]) -> dict[str, str]:
    """The warnings as a header, for answers that have no place for them."""
    if not warnings:
        return {}
    more = [f"and {len(warnings) - _SHOWN} more"] if len(warnings) > _SHOWN else []
    said = "; ".join([*warnings[:_SHOWN], *more])
    return {"x-rankd-warnings": said.encode("ascii", "backslashreplace").decode()}


def usage_headers(usage: RankUsage) -> dict[str, str]:
    """What a request is charged for, a dictionary of RFC 9651: few dialects have a place for
    all of it, and some for none."""
    counts = ", ".join(f"{name}={count}" for name, count in usage._asdict().items())
    return {"x-rankd-cached": str(usage.cached_documents), "x-rankd-usage": counts}


def below_header(left_out: int | None) -> dict[str, str]:
    """How many documents a threshold took away; nothing where there is none."""
    return {} if left_out is None else {"x-rankd-below-threshold": str(left_out)}


def short_name(name: str) -> str:
    return name if len(name) <= 60 else name[:57] + "..."


def rounded(number: float) -> float:
    """A score as it goes on the wire: seven digits, at most 18 characters.

    Java clients read a longer literal as BigDecimal and fail on it.
    """
    return float(f"{number:.7g}")


def parse(body: bytes) -> Any:
    """JSON in UTF-8 that an answer can repeat, half surrogate pairs mended.

    Raises:
        InvalidRequest: it is not JSON, or nests too deep.
    """
    body = body.removeprefix(_MARK)
    if not body.strip():
        raise InvalidRequest("the body is empty; send a JSON object")
    if body.startswith(_GZIP):
        raise UnsupportedMedia("the body is compressed; send plain JSON")
    try:
        value = orjson.loads(body)
        _refuse_deep(value, body)
        return value
    except orjson.JSONDecodeError as problem:
        first = problem
    # orjson refuses half a surrogate pair ("\ud83d"), which JavaScript's splitters
    # send whenever they cut an emoji in two. The standard library takes it.
    try:
        value = _loads(body.decode())
        _refuse_deep(value, body)
        return _mend(value)
    except (ValueError, RecursionError):
        reason = first.msg[0].lower() + first.msg[1:]
        raise InvalidRequest(
            f"the body is not valid JSON: {reason} (line {first.lineno}, column {first.colno})"
        ) from None


def _loads(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse_constant, parse_int=_integer)


def _integer(digits: str) -> int | float:
    """As orjson reads it, which writes no longer ones."""
    value = int(digits)
    return value if -(2**63) <= value < 2**64 else float(digits)


def _refuse_deep(value: Any, body: bytes) -> None:
    """Whoever walks through a body later may do so without a look at the stack."""
    # Nearly no body has as many brackets, and where none has, nothing nests.
    if body.count(b"[") + body.count(b"{") <= _DEEPEST:
        return
    level, depth = [value] if isinstance(value, dict | list) else [], 1
    while level := [
        item
        for node in level
        for item in (node.values() if isinstance(node, dict) else node)
        if isinstance(item, dict | list)
    ]:
        depth += 1
        if depth > _DEEPEST:
            raise _too_deep()


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"the body is nested more than {_DEEPEST} levels deep")


def _refuse_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are Python's, not JSON's.


def _mend(value: Any) -> Any:
    """Replace what no encoding can express, so that answers can repeat it."""
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list():
            return [_mend(item) for item in value]
        case dict():
            return {_mend(key): _mend(item) for key, item in value.items()}
    return value


def _complaint(problem: ValidationError) -> InvalidRequest:
    error = problem.errors(include_url=False)[0]
    path = _path(error["loc"])
    got = error["input"]
    match error["type"]:
        case "missing":
            sentence = f"{path} is missing"
        case "value_error":
            sentence = f"{path} {error['ctx']['error']}"
        case "string_type":
            sentence = f"{path} must be a string, not {type_name(got)}"
        case "model_type" | "dict_type":
            sentence = f"{path} must be an object, not {type_name(got)}"
        case "list_type":
            sentence = f"{path} must be an array, not {type_name(got)}"
        case "bool_type" | "bool_parsing":
            sentence = f"{path} must be true or false, not {type_name(got)}"
        case "float_type" | "float_parsing" | "finite_number":
            sentence = f"{path} must be a number, not {type_name(got)}"
        case "int_type" | "int_parsing" | "int_from_float" | "int_parsing_size":
            sentence = f"{path} must be an integer, not {type_name(got)}"
        case _:
            sentence = f"{path}: {error['msg'][0].lower()}{error['msg'][1:]}, got {shorten(got)}"
    return InvalidRequest(sentence, param=path or None)


def _path(location: tuple[int | str, ...]) -> str:
    """`documents[3].text`"""
    return "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in location
    ).removeprefix(".")
