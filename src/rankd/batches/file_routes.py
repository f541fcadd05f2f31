"""`/v1/files`: upload, list, read and delete files, as in OpenAI's API."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from rankd.batches import queries
from rankd.batches.parameters import (
    AFTER,
    READ_FAILURES,
    WRITE_FAILURES,
    batches_of,
    limit_of,
    limit_parameter,
    owner_of,
    page,
    path_parameter,
    query_parameter,
)
from rankd.batches.records import File, now
from rankd.batches.schemas import Deleted, ExpiresAfter, FileList, FileObject, UploadForm
from rankd.batches.upload import UploadedForm, uploaded_form
from rankd.config.text import shorten
from rankd.dialects import json_io
from rankd.dialects.openapi import body_of
from rankd.errors import InvalidRequest, NotFound
from rankd.ranking.service import service_of

router = APIRouter()

# Routes that read the request's body themselves as it arrives, beyond --max-body-bytes.
STREAMED_PATHS = frozenset({"/v1/files"})

# OpenAI's limit, and default, of files per page.
_MAX_FILES = 10_000


def _form_schema() -> dict[str, Any]:
    """OpenAPI's request body of an upload."""
    shape = body_of(UploadForm)
    content = shape["requestBody"]["content"]
    content["multipart/form-data"] = content.pop("application/json")
    return shape


@router.post(
    "/v1/files",
    summary="Upload a file of requests",
    responses={200: {"model": FileObject}, **WRITE_FAILURES},
    openapi_extra=_form_schema(),
)
async def upload(http: Request) -> Response:
    """JSON lines, one request per line: `{"custom_id", "method": "POST", "url", "body"}`."""
    batches = batches_of(http)
    service_of(http).drain.refuse_when_begun()
    async with (
        batches.reservation() as reserve,
        uploaded_form(
            http, batches.folder, max_bytes=batches.max_file_bytes, reserve=reserve
        ) as form,
    ):
        file = _new_file(form, owner_of(http), batches.retention_seconds)
        await batches.database.run(queries.add_file, file)
    return json_io.JsonResponse(file.to_json())


def _new_file(form: UploadedForm, owner: str, retention_seconds: int) -> File:
    purpose = form.fields.get("purpose")
    if purpose is None:
        raise InvalidRequest("purpose is missing; send batch", param="purpose")
    if purpose != "batch":
        raise InvalidRequest(f"purpose must be batch, not {shorten(purpose)!r}", param="purpose")
    if form.filename is None:
        raise InvalidRequest("file is missing", param="file")
    if not form.size:
        raise InvalidRequest("file is empty", param="file")
    created_at = now()
    return File(
        id=form.path.name,
        owner=owner,
        filename=form.filename,
        purpose=purpose,
        bytes=form.size,
        created_at=created_at,
        expires_at=created_at + (_expires_after(form.fields) or retention_seconds),
    )


def _expires_after(fields: Mapping[str, str]) -> int | None:
    """Seconds, from the two `expires_after` fields of a form; None without them."""
    anchor, seconds = (fields.get(f"expires_after[{name}]") for name in ("anchor", "seconds"))
    if anchor is None and seconds is None:
        return None
    values = {
        "anchor": anchor,
        "seconds": int(seconds[:12]) if seconds and seconds.isdecimal() else seconds,
    }
    try:
        return json_io.validate(ExpiresAfter, values).seconds
    except InvalidRequest as error:
        param = f"expires_after[{error.param}]"
        raise InvalidRequest(f"expires_after: {error.message}", param=param) from None


@router.get(
    "/v1/files",
    summary="List files",
    responses={200: {"model": FileList}, **READ_FAILURES},
    openapi_extra={
        "parameters": [
            query_parameter(
                "purpose", "Only files with this purpose. Default: all.", type="string"
            ),
            limit_parameter(_MAX_FILES, _MAX_FILES),
            query_parameter(
                "order",
                "Order by creation time. Default: desc.",
                type="string",
                enum=["asc", "desc"],
            ),
            AFTER,
        ]
    },
)
async def list_files(http: Request) -> Response:
    """One page of the files of the caller's key."""
    batches = batches_of(http)
    limit = limit_of(http, _MAX_FILES, _MAX_FILES)
    order = http.query_params.get("order", "desc")
    if order not in ("asc", "desc"):
        raise InvalidRequest(f"order must be asc or desc, not {shorten(order)!r}", param="order")
    files = await batches.database.run(
        queries.list_files,
        owner_of(http),
        purpose=http.query_params.get("purpose"),
        after=http.query_params.get("after"),
        ascending=order == "asc",
        limit=limit + 1,
    )
    return page(files, limit)


@router.get(
    "/v1/files/{file_id}",
    summary="One file",
    responses={200: {"model": FileObject}, **READ_FAILURES},
    openapi_extra={"parameters": [path_parameter("file_id")]},
)
async def file(http: Request) -> Response:
    """Name, size and times of a file."""
    return json_io.JsonResponse((await _file_in_path(http)).to_json())


@router.get(
    "/v1/files/{file_id}/content",
    summary="A file's bytes",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}, **READ_FAILURES},
    openapi_extra={"parameters": [path_parameter("file_id")]},
)
async def content(http: Request) -> Response:
    """The bytes as uploaded, or as the job wrote them."""
    record = await _file_in_path(http)
    path = batches_of(http).folder / record.id
    if not await asyncio.to_thread(path.exists):
        raise _not_found(record.id)  # Deleted by hand, or missing from a restored backup.
    return FileResponse(path, media_type="application/octet-stream")


@router.delete(
    "/v1/files/{file_id}",
    summary="Delete a file",
    responses={200: {"model": Deleted}, **READ_FAILURES},
    openapi_extra={"parameters": [path_parameter("file_id")]},
)
async def delete(http: Request) -> Response:
    """Deletes a file at once; 400 while an unfinished job reads it."""
    batches = batches_of(http)
    file_id = http.path_params["file_id"]
    record, job_id = await batches.database.run(queries.delete_file, owner_of(http), file_id)
    if record is None:
        raise _not_found(file_id)
    if job_id is not None:
        raise InvalidRequest(
            f"{record.id} is the input of {job_id}, which is not finished; cancel that job first",
            param="file_id",
        )
    await batches.delete_bytes([record.id])
    return json_io.JsonResponse({"id": record.id, "object": "file", "deleted": True})


async def _file_in_path(http: Request) -> File:
    file_id = http.path_params["file_id"]
    record = await batches_of(http).database.run(queries.get_file, owner_of(http), file_id)
    if record is None:
        raise _not_found(file_id)
    return record


def _not_found(file_id: str) -> NotFound:
    return NotFound(f"no such file: {shorten(file_id)}", param="file_id")
