"""/v1/files and /v1/batches, as OpenAI's SDKs call them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from starlette.types import Scope

from rankd.batches import queries
from rankd.batches.records import File, Job, new_id, now
from rankd.batches.schemas import BatchList as BatchList
from rankd.batches.schemas import (
    BatchObject,
    CreateBatchRequest,
    Deleted,
    ExpiresAfter,
    FileList,
    FileObject,
    UploadForm,
)
from rankd.batches.service import DAY, BatchService
from rankd.batches.upload import UploadedForm, received
from rankd.context import CALLER
from rankd.dialects import json_io
from rankd.dialects.envelopes import OpenAIFailure
from rankd.dialects.openapi import body_of, failures
from rankd.errors import InvalidRequest, NotFound, TooManyRequests
from rankd.ranking.service import service_of

TAG = {"name": "batches", "description": "Batch jobs in OpenAI's manner; see --batch-dir."}

_READS = failures(OpenAIFailure, (400, 401, 404, 500, 503))
_WRITES = failures(OpenAIFailure)

router = APIRouter(tags=[TAG["name"]])

# OpenAI's own bounds.
_MOST_METADATA = 16
_MOST_FILES, _MOST_BATCHES = 10_000, 100

# Jobs of one key that are not finished; each is a task and a row.
_MOST_UNFINISHED = 1_000

_WINDOW = re.compile(r"([1-9]\d{0,6})([smhd])", re.ASCII)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": DAY}


def streams_body(scope: Scope) -> bool:
    """Whether a request's body is read as it arrives: it may be larger than any other."""
    return bool(scope["method"] == "POST" and scope["path"] == "/v1/files")


def _batches(http: Request) -> BatchService:
    found = cast("BatchService | None", http.app.state.batches)
    if found is None:
        raise NotFound("this server keeps no batch jobs; start it with --batch-dir DIRECTORY")
    return found


def _owner(http: Request) -> str:
    owner: str = http.scope.get(CALLER, "")
    return owner


def _in_path(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": "As the answer to its making says.",
        "schema": {"type": "string", "minLength": 1},
    }


def _in_query(name: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


_AFTER = _in_query(
    "after", "The last one of the page before; the first page when absent.", type="string"
)


def _pages(most: int, default: int) -> dict[str, Any]:
    return _in_query(
        "limit",
        f"How many at most; {default} when absent.",
        type="integer",
        minimum=1,
        maximum=most,
    )


def _form() -> dict[str, Any]:
    """The form as a body, in the words of OpenAPI."""
    shape = body_of(UploadForm)
    content = shape["requestBody"]["content"]
    content["multipart/form-data"] = content.pop("application/json")
    return shape


# Files.


@router.post(
    "/v1/files",
    summary="Upload a file of requests",
    responses={200: {"model": FileObject}, **_WRITES},
    openapi_extra=_form(),
)
async def upload(http: Request) -> Response:
    """One request a line: `{"custom_id", "method": "POST", "url", "body"}`."""
    batches = _batches(http)
    service_of(http).drain.refuse_when_begun()
    async with (
        batches.reservation() as reserve,
        received(http, batches.folder, most_bytes=batches.file_bytes, reserve=reserve) as form,
    ):
        file = _file(form, _owner(http), batches.lasting_seconds)
        await batches.database.do(queries.add_file, file)
    return json_io.JsonResponse(file.shown())


def _file(form: UploadedForm, owner: str, lasting_seconds: int) -> File:
    purpose = form.fields.get("purpose")
    if purpose is None:
        raise InvalidRequest("purpose is missing; send batch", param="purpose")
    if purpose != "batch":
        raise InvalidRequest(
            f"purpose must be batch, not {json_io.short_name(purpose)!r}", param="purpose"
        )
    if form.filename is None:
        raise InvalidRequest("file is missing", param="file")
    if not form.size:
        raise InvalidRequest("file is empty", param="file")
    made = now()
    return File(
        form.path.name,
        owner,
        form.filename,
        purpose,
        form.size,
        made,
        made + (_lasting(form.fields) or lasting_seconds),
    )


def _lasting(fields: Mapping[str, str]) -> int | None:
    """Seconds, of a form's two fields."""
    anchor, seconds = (fields.get(f"expires_after[{name}]") for name in ("anchor", "seconds"))
    if anchor is None and seconds is None:
        return None
    values = {
        "anchor": anchor,
        "seconds": int(seconds[:12]) if seconds and seconds.isdecimal() else seconds,
    }
    try:
        return json_io.validate(ExpiresAfter, values).seconds
    except InvalidRequest as problem:
        param = f"expires_after[{problem.param}]"
        raise InvalidRequest(f"expires_after: {problem.message}", param=param) from None


@router.get(
    "/v1/files",
    summary="List files",
    responses={200: {"model": FileList}, **_READS},
    openapi_extra={
        "parameters": [
            _in_query("purpose", "Only those; all when absent.", type="string"),
            _pages(_MOST_FILES, _MOST_FILES),
            _in_query(
                "order",
                "By the time of their making; desc when absent.",
                type="string",
                enum=["asc", "desc"],
            ),
            _AFTER,
        ]
    },
)
async def list_files(http: Request) -> Response:
    """Those of the caller's key, a page at a time."""
    batches = _batches(http)
    limit = _limit(http, _MOST_FILES, _MOST_FILES)
    order = http.query_params.get("order", "desc")
    if order not in ("asc", "desc"):
        raise InvalidRequest(
            f"order must be asc or desc, not {json_io.short_name(order)!r}", param="order"
        )
    found = await batches.database.do(
        queries.files,
        _owner(http),
        purpose=http.query_params.get("purpose"),
        after=http.query_params.get("after"),
        ascending=order == "asc",
        most=limit + 1,
    )
    return _page(found, limit)


@router.get(
    "/v1/files/{file_id}",
    summary="One file",
    responses={200: {"model": FileObject}, **_READS},
    openapi_extra={"parameters": [_in_path("file_id")]},
)
async def file(http: Request) -> Response:
    """What is known of it."""
    return json_io.JsonResponse((await _found_file(http)).shown())


@router.get(
    "/v1/files/{file_id}/content",
    summary="A file's bytes",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}, **_READS},
    openapi_extra={"parameters": [_in_path("file_id")]},
)
async def content(http: Request) -> Response:
    """As they were uploaded, or as the job wrote them."""
    found = await _found_file(http)
    path = _batches(http).folder / found.id
    if not await asyncio.to_thread(path.exists):
        raise _no_file(found.id)  # Half a backup, or somebody's broom.
    return FileResponse(path, media_type="application/octet-stream")


@router.delete(
    "/v1/files/{file_id}",
    summary="Delete a file",
    responses={200: {"model": Deleted}, **_READS},
    openapi_extra={"parameters": [_in_path("file_id")]},
)
async def delete(http: Request) -> Response:
    """At once, unless an unfinished job reads it."""
    batches = _batches(http)
    name = http.path_params["file_id"]
    found, user = await batches.database.do(queries.delete_file, _owner(http), name)
    if found is None:
        raise _no_file(name)
    if user is not None:
        raise InvalidRequest(f"{found.id} is read by {user}; cancel that first", param="file_id")
    await batches.forget([found.id])
    return json_io.JsonResponse({"id": found.id, "object": "file", "deleted": True})


async def _found_file(http: Request) -> File:
    name = http.path_params["file_id"]
    found = await _batches(http).database.do(queries.file, _owner(http), name)
    if found is None:
        raise _no_file(name)
    return found


def _no_file(name: str) -> NotFound:
    return NotFound(f"no such file: {json_io.short_name(name)}", param="file_id")


# Jobs.


@router.post(
    "/v1/batches",
    summary="Run a file of requests",
    responses={200: {"model": BatchObject}, **_WRITES},
    openapi_extra=body_of(CreateBatchRequest),
)
async def create(http: Request) -> Response:
    """It begins at once, behind every request that somebody waits for."""
    batches = _batches(http)
    service_of(http).drain.refuse_when_begun()
    request = json_io.validate(
        CreateBatchRequest,
        json_io.read_object(await http.body(), service_of(http).ranker.max_documents),
    )
    _refuse_long_metadata(request.metadata)
    _refuse_unknown_endpoint(request.endpoint, batches.endpoints)
    made = now()
    expires_at = made + _seconds(request.completion_window)
    await _refuse_other_files(batches, _owner(http), request.input_file_id)
    lasting = request.output_expires_after
    batch = Job(
        id=new_id("batch_"),
        owner=_owner(http),
        endpoint=request.endpoint,
        input_file_id=request.input_file_id,
        completion_window=request.completion_window,
        created_at=made,
        expires_at=expires_at,
        output_seconds=lasting.seconds if lasting else batches.lasting_seconds,
        metadata=request.metadata,
    )
    running = await batches.database.do(queries.add_batch, batch, _MOST_UNFINISHED)
    if running is None:
        raise _no_input(batch.input_file_id)
    if running >= _MOST_UNFINISHED:
        raise TooManyRequests(
            f"{running:,} batch jobs of this key are not finished; that is the limit"
        )
    batches.runner.start(batch.id)
    return json_io.JsonResponse(batch.shown())


def _refuse_long_metadata(metadata: Mapping[str, str] | None) -> None:
    """OpenAI's bounds."""
    pairs = metadata or {}
    if len(pairs) > _MOST_METADATA:
        raise InvalidRequest(
            f"metadata has {len(pairs)} fields; the limit is {_MOST_METADATA}", param="metadata"
        )
    if any(len(name) > 64 or len(value) > 512 for name, value in pairs.items()):
        raise InvalidRequest(
            "metadata: a name may have 64 characters and a text 512", param="metadata"
        )


def _refuse_unknown_endpoint(endpoint: str, known: frozenset[str]) -> None:
    if endpoint not in known:
        raise InvalidRequest(
            f"endpoint {json_io.short_name(endpoint)!r} is not served here; send /v1/rerank, "
            "/v1/score or another path of docs/api.md",
            param="endpoint",
        )


def _seconds(window: str) -> int:
    match = _WINDOW.fullmatch(window)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < seconds <= 30 * DAY:
        raise InvalidRequest(
            "completion_window must be 24h, or another number of s, m, h or d up to 30d, not "
            f"{json_io.short_name(window)!r}",
            param="completion_window",
        )
    return seconds


async def _refuse_other_files(batches: BatchService, owner: str, name: str) -> None:
    found = await batches.database.do(queries.file, owner, name)
    if found is None:
        raise _no_input(name)
    if found.purpose != "batch":
        raise InvalidRequest(
            f"{found.id} has the purpose {found.purpose}; send a file uploaded with batch",
            param="input_file_id",
        )


def _no_input(name: str) -> InvalidRequest:
    """The path is right, so it is no 404."""
    return InvalidRequest(f"no such file: {json_io.short_name(name)}", param="input_file_id")


@router.get(
    "/v1/batches",
    summary="List jobs",
    responses={200: {"model": BatchList}, **_READS},
    openapi_extra={"parameters": [_pages(_MOST_BATCHES, 20), _AFTER]},
)
async def list_batches(http: Request) -> Response:
    """Those of the caller's key, the newest first, a page at a time."""
    batches = _batches(http)
    limit = _limit(http, _MOST_BATCHES, 20)
    found = await batches.database.do(
        queries.batches, _owner(http), after=http.query_params.get("after"), most=limit + 1
    )
    return _page(found, limit)


@router.get(
    "/v1/batches/{batch_id}",
    summary="One job",
    responses={200: {"model": BatchObject}, **_READS},
    openapi_extra={"parameters": [_in_path("batch_id")]},
)
async def batch(http: Request) -> Response:
    """How far it is."""
    found = await _batches(http).database.do(
        queries.batch, http.path_params["batch_id"], _owner(http)
    )
    return json_io.JsonResponse(_there(found, http).shown())


@router.post(
    "/v1/batches/{batch_id}/cancel",
    summary="Cancel a job",
    responses={200: {"model": BatchObject}, **_WRITES},
    openapi_extra={"parameters": [_in_path("batch_id")]},
)
async def cancel(http: Request) -> Response:
    """What is answered by now stays, and the other lines are named in the error file."""
    batches = _batches(http)
    found, is_cancelled = await batches.database.do(
        queries.cancel, http.path_params["batch_id"], _owner(http)
    )
    there = _there(found, http)
    if not is_cancelled:
        raise InvalidRequest(f"{there.id} cannot be cancelled: it is {there.status}")
    batches.runner.cancel(there.id)
    return json_io.JsonResponse(there.shown())


def _there(found: Job | None, http: Request) -> Job:
    if found is None:
        name = json_io.short_name(http.path_params["batch_id"])
        raise NotFound(f"no such batch job: {name}", param="batch_id")
    return found


# Pages.


def _limit(http: Request, most: int, default: int) -> int:
    said = http.query_params.get("limit")
    if said is None:
        return default
    if not (said.isascii() and said.isdigit() and len(said) < 10 and 1 <= int(said) <= most):
        raise InvalidRequest(
            f"limit must be 1 to {most:,}, not {json_io.short_name(said)!r}", param="limit"
        )
    return int(said)


def _page(found: Sequence[File] | Sequence[Job], limit: int) -> Response:
    """A list of at most so many, of which one more was looked for."""
    data = [one.shown() for one in found[:limit]]
    return json_io.JsonResponse(
        {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": len(found) > limit,
        }
    )
