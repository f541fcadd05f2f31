"""What the routes of files and jobs read from a request, and how both document it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from fastapi import Request, Response

from rankd.batches.records import File, Job
from rankd.batches.service import BatchService
from rankd.config.text import shorten
from rankd.context import CALLER
from rankd.dialects import json_io
from rankd.dialects.envelopes import OpenAIFailure
from rankd.dialects.openapi import failures
from rankd.errors import InvalidRequest, NotFound

READ_FAILURES = failures(OpenAIFailure, (400, 401, 404, 500, 503))
WRITE_FAILURES = failures(OpenAIFailure)


def batches_of(http: Request) -> BatchService:
    """The server's batch service; raises NotFound without --batch-dir."""
    service = cast("BatchService | None", http.app.state.batches)
    if service is None:
        raise NotFound("this server has no batch jobs; start it with --batch-dir DIRECTORY")
    return service


def owner_of(http: Request) -> str:
    """Name of the key that the request was sent with; empty without keys."""
    owner: str = http.scope.get(CALLER, "")
    return owner


# OpenAPI parameters.


def path_parameter(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": "The `id` from the response that created it.",
        "schema": {"type": "string", "minLength": 1},
    }


def query_parameter(name: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


AFTER = query_parameter(
    "after", "Id of the last item of the previous page. Default: the first page.", type="string"
)


def limit_parameter(maximum: int, default: int) -> dict[str, Any]:
    return query_parameter(
        "limit", f"Items per page. Default: {default}.", type="integer", minimum=1, maximum=maximum
    )


# Pages.


def limit_of(http: Request, maximum: int, default: int) -> int:
    """The query parameter `limit`; raises InvalidRequest unless it is 1 to `maximum`."""
    text = http.query_params.get("limit")
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= maximum):
        raise InvalidRequest(
            f"limit must be 1 to {maximum:,}, not {shorten(text)!r}", param="limit"
        )
    return int(text)


def page(records: Sequence[File] | Sequence[Job], limit: int) -> Response:
    """OpenAI's list of the first `limit` records; one more record means another page."""
    data = [record.to_json() for record in records[:limit]]
    return json_io.JsonResponse(
        {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": len(records) > limit,
        }
    )
