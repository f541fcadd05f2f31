"""Many requests in one, at `/v1/batch_rerank`: each is answered, or refused, by itself.

Each part is in whatever dialect its body speaks, is admitted by itself, and shares the engine
with the others as requests of one caller do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field

from rankd.dialects import detect, handler, json_io
from rankd.dialects.base import Dialect
from rankd.dialects.fields import SAYING, refuse_many_fields, type_name
from rankd.dialects.reply import Reply
from rankd.dialects.request import RERANK_PATHS, RequestBody, example
from rankd.errors import InternalError, InvalidRequest, RankError, TooLarge
from rankd.ranking.service import ModelService, service_of
from rankd.telemetry import metrics
from rankd.types import RankRequest, RankUsage

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
        description="Rerank requests, in any dialect each; absent where `queries` are sent. Fields "
        "beside this one hold for every request that does not have them.",
    )
    queries: _Queries | None = Field(
        None,
        description="Short for requests of which each has but a query; absent where `requests` "
        "are sent.",
    )
    model: str | None = Field(
        None,
        description="Any name is answered by the served model, unless --strict-model; that model "
        "when absent.",
    )

    def parts(self) -> list[Any]:
        """The bodies of the requests, whatever they are."""
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
        named = {} if self.model is None else {"model": self.model}
        return {**(self.model_extra or {}), **named}


class BatchRerankPart(BaseModel):
    index: int = Field(description="Place of the request, from 0.")
    status_code: int = Field(description="That it would have had by itself.")
    body: Any = Field(description="The answer, or the error, that it would have had by itself.")
    retry_after: int | None = Field(
        None, description="Seconds after which to send it again; absent when that is no use."
    )


class BatchRerankResponse(BaseModel):
    results: list[BatchRerankPart] = Field(description="In the order of the requests.")


@dataclass(frozen=True)
class _Subrequest:
    """A part that can be ranked."""

    dialect: Dialect
    request: RequestBody
    rank_request: RankRequest


async def batch_rerank(http: Request) -> Response:
    """Many requests in one, each answered or refused by itself."""
    service = service_of(http)
    request = json_io.validate(BatchRerankRequest, await handler.fields_in(http))
    service.accept_model(request.model)
    orders = [_read(http, service, part, place) for place, part in enumerate(request.parts())]
    _refuse_too_many(orders, service.ranker.max_documents)
    # As many at a time as the key may have, so that none is refused for the others.
    turns = asyncio.Semaphore(service.ranker.limits.concurrency or len(orders))

    replies: dict[int, Reply] = {}

    async def answer(place: int, order: _Subrequest | dict[str, Any]) -> dict[str, Any]:
        if not isinstance(order, _Subrequest):
            return order
        async with turns:
            return await _answer(http, service, order, place, replies)

    async with asyncio.TaskGroup() as group:
        parts = [group.create_task(answer(place, order)) for place, order in enumerate(orders)]
    answered = [part.result() for part in parts]
    return json_io.JsonResponse({"results": answered}, headers=_headers(service, replies))


def _headers(service: ModelService, replies: Mapping[int, Reply]) -> dict[str, str]:
    """What stands on every ranking, of all parts together."""
    warnings = [f"requests[{at}]: {one}" for at in sorted(replies) for one in replies[at].warnings]
    usages = [reply.ranking.usage() for reply in replies.values()]
    left_out = [reply.left_out for reply in replies.values() if reply.left_out is not None]
    return {
        **service.provenance.header,
        **json_io.warning_header(warnings),
        **json_io.usage_headers(
            RankUsage(*map(sum, zip(RankUsage(0, 0, 0, 0, 0), *usages, strict=True)))
        ),
        **json_io.below_header(sum(left_out) if left_out else None),
    }


def _read(
    http: Request, service: ModelService, part: Any, place: int
) -> _Subrequest | dict[str, Any]:
    """What a part asks for, or why it cannot be answered."""
    dialect = detect.dialect_of(part if isinstance(part, dict) else {})
    try:
        if not isinstance(part, dict):
            raise InvalidRequest(f"a request must be an object, not {type_name(part)}")
        refuse_many_fields(part, "the body")
        json_io.refuse_long_lists(part, service.ranker.max_documents)
        return _Subrequest(dialect, *handler.read_request(http, service, dialect, part))
    except RankError as problem:
        return _refused(dialect, problem, place)


def _refuse_too_many(orders: Sequence[_Subrequest | Mapping[str, Any]], most: int) -> None:
    documents = sum(
        len(order.rank_request.documents) for order in orders if isinstance(order, _Subrequest)
    )
    if documents > most:
        metrics.REFUSED.labels("request_documents").inc()
        raise TooLarge(
            f"{documents:,} documents in {len(orders):,} requests; the limit of all together is "
            f"{most:,}",
            param="requests",
        )


async def _answer(
    http: Request, service: ModelService, order: _Subrequest, place: int, replies: dict[int, Reply]
) -> dict[str, Any]:
    dialect, request, rank_request = order.dialect, order.request, order.rank_request
    try:
        ranking = await handler.rank(http, request, [rank_request], dialect=dialect)
        path, profile = RERANK_PATHS[0], handler.profile_of(http, request)
        reply = handler.build_reply(dialect, request, rank_request, ranking, service, path, profile)
        body = orjson.Fragment(bytes(handler.render(dialect, reply).body))
        replies[place] = reply
        return {"index": place, "status_code": 200, "body": body}
    except RankError as problem:
        return _refused(dialect, problem, place)
    except Exception as problem:
        # One part's bug is no other's; its message may quote a document.
        _log.error("a part of a request failed: %s", type(problem).__name__)
        return _refused(dialect, InternalError("an error inside rankd; it has been logged"), place)


def _refused(dialect: Dialect, problem: RankError, place: int) -> dict[str, Any]:
    wait = {} if problem.retry_after is None else {"retry_after": problem.retry_after}
    return {
        "index": place,
        "status_code": problem.status,
        "body": dialect.envelope(problem),
        **wait,
    }
