"""Input and output lines of a job: checks and reads the former, builds the latter."""

from __future__ import annotations

import json
from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from rankd.batches.records import new_id
from rankd.config.text import shorten
from rankd.dialects import json_io

# Errors reported for one file.
MAX_ERRORS = 100

# Bytes that a line may have besides its body.
_ENVELOPE_BYTES = 16 * 1024

_MAX_ID_CHARACTERS = 512


@dataclass(frozen=True, slots=True)
class JobLine:
    """One request of an input file.

    Attributes:
        number: index in the file, from 0; blank lines are not counted.
        body: JSON.
    """

    number: int
    custom_id: str
    body: bytes


class InvalidLine(Exception):
    """Why a line cannot be run, with the fields of OpenAI's error objects."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


@dataclass(frozen=True, slots=True)
class FileSummary:
    """The result of checking a whole file.

    Attributes:
        total: lines that are not blank.
        errors: OpenAI's error objects, at most `MAX_ERRORS`; empty if the file can be run.
    """

    total: int
    errors: list[dict[str, Any]]


def check_file(path: Path, endpoint: str, *, max_lines: int, max_bytes: int) -> FileSummary:
    """Check every line of a file, except for the contents of `body`.

    Args:
        max_bytes: of one line's body.
    """
    errors: list[dict[str, Any]] = []
    first_lines: dict[str, int] = {}
    total = 0

    def add(error: InvalidLine, line: int | None) -> None:
        errors.append(
            {"code": error.code, "line": line, "message": str(error), "param": error.param}
        )

    with path.open("rb") as file:
        for line, text in enumerate(_raw_lines(file, max_bytes), 1):
            if not text.strip():
                continue
            total += 1
            if total > max_lines:
                message = (
                    f"the file has more than {max_lines:,} requests, the limit of this server; "
                    "split it into several files"
                )
                add(InvalidLine("too_many_requests", message), None)
                break
            try:
                custom_id = _checked(text, endpoint, max_bytes)["custom_id"]
                if custom_id in first_lines:
                    message = (
                        f"custom_id {shorten(ascii(custom_id))} is already used in line "
                        f"{first_lines[custom_id]}; each must be unique"
                    )
                    raise InvalidLine("duplicate_custom_id", message, "custom_id")
                first_lines[custom_id] = line
            except InvalidLine as error:
                add(error, line)
            if len(errors) >= MAX_ERRORS:
                break
    if not total:
        add(InvalidLine("empty_file", "the file contains no requests"), None)
    return FileSummary(total, errors)


def read_lines(
    path: Path, endpoint: str, max_bytes: int, done: Collection[int]
) -> Generator[JobLine, None, None]:
    """The lines of a checked file whose numbers are not in `done`."""
    with path.open("rb") as file:
        number = 0
        for text in _raw_lines(file, max_bytes):
            if not text.strip():
                continue
            if number not in done:
                fields = _checked(text, endpoint, max_bytes)
                yield JobLine(number, fields["custom_id"], _body(fields["body"]))
            number += 1


def _raw_lines(file: IO[bytes], max_bytes: int) -> Iterator[bytes]:
    """Every line; a line over the limit is cut one byte after the limit."""
    limit = max_bytes + _ENVELOPE_BYTES
    while text := file.readline(limit + 1):
        yield text
        while len(text) > limit and not text.endswith(b"\n"):
            text = file.readline(limit + 1)
            if not text:
                return


def _checked(text: bytes, endpoint: str, max_bytes: int) -> dict[str, Any]:
    """The fields of a line; raises `InvalidLine`."""
    if len(text) > max_bytes + _ENVELOPE_BYTES:
        raise InvalidLine(
            "line_too_long", f"the line has more than {max_bytes:,} bytes, the limit of this server"
        )
    fields = _parsed(text)
    custom_id = fields.get("custom_id")
    if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= _MAX_ID_CHARACTERS:
        message = f"custom_id must be a string of 1 to {_MAX_ID_CHARACTERS} characters"
        raise InvalidLine("invalid_custom_id", message, "custom_id")
    if fields.get("method") != "POST":
        raise InvalidLine("invalid_method", 'method must be "POST"', "method")
    if fields.get("url") != endpoint:
        url = shorten(ascii(fields.get("url")))
        message = f"url must be the endpoint of the batch, {endpoint}, not {url}"
        raise InvalidLine("invalid_url", message, "url")
    if not isinstance(fields.get("body"), dict):
        raise InvalidLine("invalid_body", "body must be an object", "body")
    return fields


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        fields = json_io.loads(text)
    except orjson.JSONDecodeError:
        raise InvalidLine("invalid_json_line", "the line is not valid JSON") from None
    if not isinstance(fields, dict):
        raise InvalidLine("invalid_json_line", "the line must be a JSON object")
    return fields


def _body(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:  # More than 254 levels; the endpoint refuses it with a reason.
        return json.dumps(body).encode()


# Output lines.


def result_line(custom_id: str, request_id: str, status: int, body: bytes) -> bytes:
    """The output line of a request that was run, with any status."""
    response = {"status_code": status, "request_id": request_id, "body": orjson.Fragment(body)}
    return _output_line(custom_id, response, None)


def error_line(custom_id: str, code: str, message: str) -> bytes:
    """The output line of a request that was not run."""
    return _output_line(custom_id, None, {"code": code, "message": message})


def _output_line(
    custom_id: str, response: dict[str, Any] | None, error: dict[str, str] | None
) -> bytes:
    fields = {
        "id": new_id("batch_req_"),
        "custom_id": custom_id,
        "response": response,
        "error": error,
    }
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
