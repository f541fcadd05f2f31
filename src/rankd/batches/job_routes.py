"""`/v1/batches`: create, list, read and cancel jobs, as in OpenAI's API."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fastapi import APIRouter, Request, Response

from rankd.batches import queries
from rankd.batches.clock import DAY
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
)
from rankd.batches.records import Job, new_id, now
from rankd.batches.schemas import BatchList, BatchObject, CreateBatchRequest
from rankd.batches.service import BatchService
from rankd.config.text import shorten
from rankd.dialects import handler, json_io
from rankd.dialects.openapi import body_of
from rankd.errors import InvalidRequest, NotFound, TooManyRequests
from rankd.ranking.service import service_of

router = APIRouter()

# OpenAI's limits.
_MAX_METADATA_FIELDS = 16
_MAX_METADATA_NAME, _MAX_METADATA_VALUE = 64, 512
_MAX_JOBS, _DEFAULT_JOBS = 100, 20

# Unfinished jobs per key; each is a task in memory and a row in the database.
_MAX_UNFINISHED = 1_000

_WINDOW = re.compile(r"([1-9]\d{0,6})([smhd])", re.ASCII)
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": DAY}
_MAX_WINDOW_SECONDS = 30 * DAY


@router.post(
    "/v1/batches",
    summary="Run a file of requests",
    responses={200: {"model": BatchObject}, **WRITE_FAILURES},
    openapi_extra=body_of(CreateBatchRequest),
)
async def create(http: Request) -> Response:
    """The job starts at once, with a lower priority than every other request."""
    batches = batches_of(http)
    service_of(http).drain.refuse_when_begun()
    body = await handler.read_body(http, service_of(http))
    request = json_io.validate(CreateBatchRequest, body)
    job = await _new_job(request, owner_of(http), batches)
    unfinished = await batches.database.run(queries.add_job, job, _MAX_UNFINISHED)
    if unfinished is None:
        raise _no_input_file(job.input_file_id)
    if unfinished >= _MAX_UNFINISHED:
        raise TooManyRequests(
            f"this key has {unfinished:,} unfinished batch jobs, and {_MAX_UNFINISHED:,} is the "
            "limit; wait until one ends, or cancel one"
        )
    batches.runner.start(job.id)
    return json_io.JsonResponse(job.to_json())


async def _new_job(request: CreateBatchRequest, owner: str, batches: BatchService) -> Job:
    """The job that a request describes; raises InvalidRequest."""
    _check_metadata(request.metadata)
    _check_endpoint(request.endpoint, batches.endpoints)
    created_at = now()
    expires_at = created_at + _window_seconds(request.completion_window)
    await _check_input_file(batches, owner, request.input_file_id)
    expiry = request.output_expires_after
    return Job(
        id=new_id("batch_"),
        owner=owner,
        endpoint=request.endpoint,
        input_file_id=request.input_file_id,
        completion_window=request.completion_window,
        created_at=created_at,
        expires_at=expires_at,
        output_seconds=expiry.seconds if expiry else batches.retention_seconds,
        metadata=request.metadata,
    )


def _check_metadata(metadata: Mapping[str, str] | None) -> None:
    fields = metadata or {}
    if len(fields) > _MAX_METADATA_FIELDS:
        raise InvalidRequest(
            f"metadata has {len(fields)} fields; the limit is {_MAX_METADATA_FIELDS}",
            param="metadata",
        )
    if any(
        len(name) > _MAX_METADATA_NAME or len(value) > _MAX_METADATA_VALUE
        for name, value in fields.items()
    ):
        raise InvalidRequest(
            f"metadata: a name may have {_MAX_METADATA_NAME} characters, and a value "
            f"{_MAX_METADATA_VALUE}",
            param="metadata",
        )


def _check_endpoint(endpoint: str, endpoints: frozenset[str]) -> None:
    if endpoint not in endpoints:
        raise InvalidRequest(
            f"endpoint {shorten(endpoint)!r} is not served here; send /v1/rerank, "
            "/v1/score or another path of docs/api.md",
            param="endpoint",
        )


def _window_seconds(window: str) -> int:
    match = _WINDOW.fullmatch(window)
    seconds = int(match[1]) * _UNIT_SECONDS[match[2]] if match else 0
    if not 0 < seconds <= _MAX_WINDOW_SECONDS:
        raise InvalidRequest(
            "completion_window must be 24h, or another number of s, m, h or d up to 30d, not "
            f"{shorten(window)!r}",
            param="completion_window",
        )
    return seconds


async def _check_input_file(batches: BatchService, owner: str, file_id: str) -> None:
    file = await batches.database.run(queries.get_file, owner, file_id)
    if file is None:
        raise _no_input_file(file_id)
    if file.purpose != "batch":
        raise InvalidRequest(
            f"{file.id} has the purpose {file.purpose}; send a file uploaded with the purpose "
            "batch",
            param="input_file_id",
        )


def _no_input_file(file_id: str) -> InvalidRequest:
    # Not a 404: the path exists.
    return InvalidRequest(f"no such file: {shorten(file_id)}", param="input_file_id")


@router.get(
    "/v1/batches",
    summary="List jobs",
    responses={200: {"model": BatchList}, **READ_FAILURES},
    openapi_extra={"parameters": [limit_parameter(_MAX_JOBS, _DEFAULT_JOBS), AFTER]},
)
async def list_batches(http: Request) -> Response:
    """One page of the jobs of the caller's key, newest first."""
    batches = batches_of(http)
    limit = limit_of(http, _MAX_JOBS, _DEFAULT_JOBS)
    jobs = await batches.database.run(
        queries.list_jobs, owner_of(http), after=http.query_params.get("after"), limit=limit + 1
    )
    return page(jobs, limit)


@router.get(
    "/v1/batches/{batch_id}",
    summary="One job",
    responses={200: {"model": BatchObject}, **READ_FAILURES},
    openapi_extra={"parameters": [path_parameter("batch_id")]},
)
async def batch(http: Request) -> Response:
    """Status, line counts and file ids of a job."""
    job_id = http.path_params["batch_id"]
    job = await batches_of(http).database.run(queries.get_job, job_id, owner_of(http))
    return json_io.JsonResponse(_existing(job, job_id).to_json())


@router.post(
    "/v1/batches/{batch_id}/cancel",
    summary="Cancel a job",
    responses={200: {"model": BatchObject}, **WRITE_FAILURES},
    openapi_extra={"parameters": [path_parameter("batch_id")]},
)
async def cancel(http: Request) -> Response:
    """Results so far are kept; all other lines go to the error file."""
    batches = batches_of(http)
    job_id = http.path_params["batch_id"]
    found, is_cancelled = await batches.database.run(queries.cancel_job, job_id, owner_of(http))
    job = _existing(found, job_id)
    if not is_cancelled:
        raise InvalidRequest(f"{job.id} cannot be cancelled: it is {job.status}")
    batches.runner.cancel(job.id)
    return json_io.JsonResponse(job.to_json())


def _existing(job: Job | None, job_id: str) -> Job:
    if job is None:
        raise NotFound(f"no such batch job: {shorten(job_id)}", param="batch_id")
    return job
