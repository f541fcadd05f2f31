"""What every dialect needs of JSON: read it tolerantly, complain in sentences, write floats."""

from __future__ import annotations

import json
import time
from typing import Any, TypeVar

import orjson
from fastapi import Request, Response
from pydantic import BaseModel, ValidationError

from rankd import metrics
from rankd.dialects.texts import kind, short
from rankd.errors import InvalidRequest, RankError, TooLarge

Model = TypeVar("Model", bound=BaseModel)


class JSON(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


# A day; beyond what any client waits, and within what a clock can add.
LONGEST_MS = 86_400_000


async def read(request: Request, model: type[Model], most: int) -> Model:
    """The body as a request of one dialect; the content type is not asked for.

    Args:
        most: items that any list may have. Looked at first, because judging millions of
            them one by one would hold up everyone else.

    Raises:
        InvalidRequest: the body is not JSON, or not what the dialect expects.
        TooLarge: a list is longer than `most`.
    """
    body = parse(await request.body())
    if not isinstance(body, dict):
        raise InvalidRequest(f"the body must be a JSON object, not {kind(body)}")
    for name, value in body.items():
        if isinstance(value, list) and len(value) > most:
            raise TooLarge(
                f"{len(value):,} {short_name(name)} in one request; the limit is {most:,}",
                param=short_name(name),
            )
    try:
        return model.model_validate(body)
    except ValidationError as problem:
        raise _complaint(problem) from None


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """What /docs shows of a body that a route reads by itself."""
    schema = model.model_json_schema()
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def unknown_fields(request: BaseModel, dialect: str) -> list[str]:
    """Warnings that name the fields nobody here knows; they are counted, too."""
    names = sorted(request.model_extra or {})
    metrics.UNKNOWN_FIELDS.labels(dialect).inc(len(names))
    return [f"unknown field {short_name(name)!r} was ignored" for name in names[:20]]


def short_name(name: str) -> str:
    return name if len(name) <= 60 else name[:57] + "..."


def rounded(number: float) -> float:
    """A score as it goes on the wire: seven digits, at most 18 characters.

    Java clients read a longer literal as BigDecimal and fail on it.
    """
    return float(f"{number:.7g}")


def deadline(timeout_ms: int | None) -> float | None:
    return None if timeout_ms is None else time.monotonic() + timeout_ms / 1000


def error_response(error: RankError) -> Response:
    """OpenAI's envelope, with the fields beside it that other SDKs read a reason from."""
    content = {
        "error": {
            "message": error.message,
            "type": error.kind,
            "param": error.param,
            "code": error.code,
        },
        "message": error.message,
        "detail": error.message,
    }
    return JSON(content, error.status)


def parse(body: bytes) -> Any:
    """JSON in UTF-8, half surrogate pairs mended.

    Raises:
        InvalidRequest: it is not JSON.
    """
    if not body.strip():
        raise InvalidRequest("the body is empty; send a JSON object")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as problem:
        first = problem
    # orjson refuses half a surrogate pair ("\ud83d"), which JavaScript's splitters
    # send whenever they cut an emoji in two. The standard library takes it.
    try:
        return _mend(json.loads(body.decode()))
    except (ValueError, RecursionError):
        reason = first.msg[0].lower() + first.msg[1:]
        raise InvalidRequest(
            f"the body is not valid JSON: {reason} (line {first.lineno}, column {first.colno})"
        ) from None


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
            sentence = f"{path} must be a string, not {kind(got)}"
        case "list_type":
            sentence = f"{path} must be an array, not {kind(got)}"
        case "bool_type" | "bool_parsing":
            sentence = f"{path} must be true or false, not {kind(got)}"
        case "int_type" | "int_parsing" | "int_from_float":
            sentence = f"{path} must be an integer, not {kind(got)}"
        case _:
            sentence = f"{path}: {error['msg'][0].lower()}{error['msg'][1:]}, got {short(got)}"
    return InvalidRequest(sentence, param=path or None)


def _path(location: tuple[int | str, ...]) -> str:
    return "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in location
    ).removeprefix(".")
