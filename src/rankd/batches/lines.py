"""The lines of a job: requests as they come in, answers as they go out."""

from __future__ import annotations

import json
from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from rankd.batches.records import new_id

# Complaints about one file that are kept; whoever sent it knows by then.
MOST_ERRORS = 100

# What a line holds beside its body.
_ENVELOPE_BYTES = 16 * 1024

# Characters of a caller's own name of a line.
_LONGEST_ID = 512


@dataclass(frozen=True, slots=True)
class Line:
    """One request.

    Attributes:
        number: its place in the file, from 0; lines that are blank have none.
    """

    number: int
    custom_id: str
    body: bytes


class InvalidLine(Exception):
    """What is wrong with a line, as OpenAI lists it."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


@dataclass(frozen=True, slots=True)
class FileSummary:
    """What a look at a whole file says.

    Attributes:
        total: lines that are not blank.
        errors: why none of them is run; empty when all are.
    """

    total: int
    errors: list[dict[str, Any]]


def examine(path: Path, endpoint: str, *, most_lines: int, most_bytes: int) -> FileSummary:
    """Whether every line of a file can be run; what its body says is judged when it is.

    Args:
        most_bytes: that the body of one line may have.
    """
    errors: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    total = 0

    def complain(wrong: InvalidLine, row: int | None) -> None:
        said = {"code": wrong.code, "line": row, "message": str(wrong), "param": wrong.param}
        errors.append(said)

    with path.open("rb") as file:
        for row, text in enumerate(_rows(file, most_bytes), 1):
            if not text.strip():
                continue
            total += 1
            if total > most_lines:
                message = (
                    f"the file has more than {most_lines:,} requests, the limit of this server"
                )
                complain(InvalidLine("too_many_requests", message), None)
                break
            try:
                custom_id = _judged(text, endpoint, most_bytes)["custom_id"]
                if custom_id in seen:
                    message = f"custom_id {_short(custom_id)} stands in line {seen[custom_id]}, too"
                    raise InvalidLine("duplicate_custom_id", message, "custom_id")
                seen[custom_id] = row
            except InvalidLine as wrong:
                complain(wrong, row)
            if len(errors) >= MOST_ERRORS:
                break
    if not total:
        complain(InvalidLine("empty_file", "the file holds no request"), None)
    return FileSummary(total, errors)


def requests(
    path: Path, endpoint: str, most_bytes: int, done: Collection[int]
) -> Generator[Line, None, None]:
    """The lines that are still to be run, of a file that was found good."""
    with path.open("rb") as file:
        number = 0
        for text in _rows(file, most_bytes):
            if not text.strip():
                continue
            if number not in done:
                fields = _judged(text, endpoint, most_bytes)
                yield Line(number, fields["custom_id"], _body(fields["body"]))
            number += 1


def _rows(file: IO[bytes], most_bytes: int) -> Iterator[bytes]:
    """Line by line; of one that is too long only as much as shows that."""
    limit = most_bytes + _ENVELOPE_BYTES
    while text := file.readline(limit + 1):
        yield text
        while len(text) > limit and not text.endswith(b"\n"):
            text = file.readline(limit + 1)
            if not text:
                return


def _judged(text: bytes, endpoint: str, most_bytes: int) -> dict[str, Any]:
    """The fields of a line; raises `Wrong`."""
    if len(text) > most_bytes + _ENVELOPE_BYTES:
        raise InvalidLine("line_too_long", f"the line has more than {most_bytes:,} bytes")
    fields = _parsed(text)
    custom_id = fields.get("custom_id")
    if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= _LONGEST_ID:
        message = f"custom_id must be a string of 1 to {_LONGEST_ID} characters"
        raise InvalidLine("invalid_custom_id", message, "custom_id")
    if fields.get("method") != "POST":
        raise InvalidLine("invalid_method", 'method must be "POST"', "method")
    if fields.get("url") != endpoint:
        message = f"url must be that of the batch, {endpoint}, not {_short(fields.get('url'))}"
        raise InvalidLine("invalid_url", message, "url")
    if not isinstance(fields.get("body"), dict):
        raise InvalidLine("invalid_body", "body must be an object", "body")
    return fields


def _parsed(text: bytes) -> dict[str, Any]:
    text = text.removeprefix(b"\xef\xbb\xbf")  # What Windows puts before a text in UTF-8.
    try:
        fields = orjson.loads(text)
    except orjson.JSONDecodeError:
        # Half a surrogate pair, which whoever reads the body knows how to mend.
        try:
            fields = json.loads(text.decode(), parse_constant=_refuse)
        except (ValueError, RecursionError):
            raise InvalidLine("invalid_json_line", "the line is no valid JSON") from None
    if not isinstance(fields, dict):
        raise InvalidLine("invalid_json_line", "the line must be a JSON object")
    return fields


def _refuse(name: str) -> None:
    raise ValueError(name)


def _body(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:
        return json.dumps(body).encode()


def _short(value: Any) -> str:
    said = ascii(value)
    return said if len(said) <= 60 else said[:57] + "..."


# Answers.


def answered(custom_id: str, request_id: str, status: int, body: bytes) -> bytes:
    """The row of a line that was run, whatever its status."""
    response = {"status_code": status, "request_id": request_id, "body": orjson.Fragment(body)}
    return _row(custom_id, response, None)


def unanswered(custom_id: str, code: str, message: str) -> bytes:
    """The row of a line that was not run."""
    return _row(custom_id, None, {"code": code, "message": message})


def _row(custom_id: str, response: dict[str, Any] | None, error: dict[str, str] | None) -> bytes:
    row = {
        "id": new_id("batch_req_"),
        # No encoding expresses half a surrogate pair.
        "custom_id": custom_id.encode("utf-8", "replace").decode(),
        "response": response,
        "error": error,
    }
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
