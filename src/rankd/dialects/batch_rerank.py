"""`/v1/batch_rerank`: several rerank requests in one, each answered or refused by itself.

The body of each part decides its dialect. Parts are admitted one by one, and share the engine
like separate requests of one caller.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import orjson
from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field

from rankd.dialects import detect, handler, json_io
from rankd.dialects.base import Dialect
from rankd.dialects.fields import SAYING
from rankd.dialects.headers import answer_headers
from rankd.dialects.json_values import refuse_many_fields, type_name
from rankd.dialects.reply import Reply
from rankd.dialects.request import MODEL_DESCRIPTION, RERANK_PATHS, example
from rankd.dialects.resolved import ResolvedRequest
from rankd.errors import InternalError, InvalidRequest, RankError, TooLarge
from rankd.ranking.service import ModelService, service_of
from rankd.telemetry import metrics
from rankd.types import RankUsage

_log = logging.getLogger("rankd")

_MANY: dict[str, Any] = {"minItems": 1, "x-limit": "max_documents"}
_Parts = Annotated[list[Any], Field(json_schema_extra={"items": {"type": "object"}, **_MANY})]
_Queries = Annotated[list[Any], Field(json_schema_extra={"items": SAYING, **_MANY})]


class BatchRerankRequest(BaseModel):
    model_config = ConfigDict(
        extra="allow",
        **example(
            {
                "requests": [
                    {"query": "What is the capital of China?", "documents": ["Beijing.", "Bread."]},
                    {"query": "What is gravity?", "documents": ["A force."], "top_n": 1},
                ]
            }
        ),
    )

    requests: _Parts | None = Field(
        None,
        description="Rerank requests, each in any dialect. Other fields of the body are defaults "
        "for all of them. Absent if `queries` are sent.",
    )
    queries: _Queries | None = Field(
        None,
        description="Short for requests that have only a query each. Absent if `requests` are "
        "sent.",
    )
    model: str | None = Field(None, description=MODEL_DESCRIPTION)

    def parts(self) -> list[Any]:
        """The bodies of the requests, not validated, with the fields that all share.

        Raises:
            InvalidRequest: both `requests` and `queries` were sent, or neither, or an empty list.
        """
        if (self.requests is None) == (self.queries is None):
            raise InvalidRequest("send either requests or queries", param="requests")
        parts = self.requests
        if parts is None:
            parts = [{"query": query} for query in self.queries or ()]
        if not parts:
            name = "requests" if self.requests is not None else "queries"
            raise InvalidRequest(f"{name} must not be empty", param=name)
        return [{**self._shared(), **part} if isinstance(part, dict) else part for part in parts]

    def _shared(self) -> dict[str, Any]:
        model = {} if self.model is None else {"model": self.model}
        return {**(self.model_extra or {}), **model}


class BatchRerankPart(BaseModel):
    index: int = Field(description="Index of the request, from 0.")
    status_code: int = Field(description="The HTTP status that it would have by itself.")
    body: Any = Field(description="The answer or error that it would have by itself.")
    retry_after: int | None = Field(
        None, description="Seconds after which to retry; absent if a retry is no use."
    )


class BatchRerankResponse(BaseModel):
    results: list[BatchRerankPart] = Field(description="In the order of the requests.")


@dataclass(frozen=True)
class _Subrequest:
    """A part that was read and can be ranked."""

    dialect: Dialect
    request: ResolvedRequest


async def batch_rerank(http: Request) -> Response:
    """Answer every part; parts that cannot be read or ranked get an error each.

    Raises:
        InvalidRequest: the frame around the parts is wrong.
        TooLarge: all parts together have too many documents.
    """
    service = service_of(http)
    request = json_io.validate(BatchRerankRequest, await handler.read_body(http, service))
    service.accept_model(request.model)
    parts = [_read(http, service, part, index) for index, part in enumerate(request.parts())]
    _refuse_too_many(parts, service.ranker.max_documents)
    # As many at a time as the key may have in flight, so that none is refused because of others.
    slots = asyncio.Semaphore(service.ranker.limits.concurrency or len(parts))
    replies: dict[int, Reply] = {}

    async def answer(index: int, part: _Subrequest | dict[str, Any]) -> dict[str, Any]:
        if not isinstance(part, _Subrequest):
            return part
        async with slots:
            return await _answer(http, service, part, index, replies)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(answer(index, part)) for index, part in enumerate(parts)]
    results = [task.result() for task in tasks]
    return json_io.JsonResponse({"results": results}, headers=_headers(service, replies))


def _headers(service: ModelService, replies: Mapping[int, Reply]) -> dict[str, str]:
    """The headers of one answer, for all parts together; `replies` is by index."""
    warnings = [
        f"requests[{index}]: {warning}"
        for index in sorted(replies)
        for warning in replies[index].warnings
    ]
    usages = [reply.usage for reply in replies.values()]
    left_out = [reply.left_out for reply in replies.values() if reply.left_out is not None]
    total = RankUsage(*map(sum, zip(RankUsage(0, 0, 0, 0, 0), *usages, strict=True)))
    return {
        **service.provenance.header,
        **answer_headers(warnings, total, sum(left_out) if left_out else None),
    }


def _read(
    http: Request, service: ModelService, part: Any, index: int
) -> _Subrequest | dict[str, Any]:
    """The part as a request, or its error as a `BatchRerankPart`."""
    dialect = detect.dialect_of(part if isinstance(part, dict) else {})
    try:
        if not isinstance(part, dict):
            raise InvalidRequest(f"a request must be an object, not {type_name(part)}")
        refuse_many_fields(part, "the body")
        json_io.refuse_long_lists(part, service.ranker.max_documents)
        return _Subrequest(dialect, handler.read_request(http, service, dialect, part))
    except RankError as problem:
        return _failed(dialect, problem, index)


def _refuse_too_many(parts: Sequence[_Subrequest | Mapping[str, Any]], limit: int) -> None:
    documents = sum(
        len(part.request.rank.documents) for part in parts if isinstance(part, _Subrequest)
    )
    if documents > limit:
        metrics.REFUSED.labels("request_documents").inc()
        raise TooLarge(
            f"{documents:,} documents in {len(parts):,} requests; the limit of all together is "
            f"{limit:,}",
            param="requests",
        )


async def _answer(
    http: Request, service: ModelService, part: _Subrequest, index: int, replies: dict[int, Reply]
) -> dict[str, Any]:
    """The part's answer or error as a `BatchRerankPart`; adds its reply to `replies`."""
    dialect, request = part.dialect, part.request
    try:
        ranked = await handler.rank(http, service, dialect, request)
        reply = replace(
            handler.build_reply(http, service, dialect, request, ranked), path=RERANK_PATHS[0]
        )
        body = orjson.Fragment(bytes(handler.render(dialect, reply).body))
        replies[index] = reply
        return {"index": index, "status_code": 200, "body": body}
    except RankError as problem:
        return _failed(dialect, problem, index)
    except Exception as problem:
        # A bug in one part must not fail the others. Only the type: messages may quote documents.
        _log.error("a part of /batch_rerank failed: %s", type(problem).__name__)
        return _failed(dialect, InternalError("an error inside rankd; it has been logged"), index)


def _failed(dialect: Dialect, problem: RankError, index: int) -> dict[str, Any]:
    extra = {} if problem.retry_after is None else {"retry_after": problem.retry_after}
    return {
        "index": index,
        "status_code": problem.status,
        "body": dialect.envelope(problem),
        **extra,
    }
