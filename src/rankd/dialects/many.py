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

from rankd import metrics
from rankd.desk import Desk, desk_of
from rankd.dialects import counter, union, wire
from rankd.dialects.base import RERANK_PATHS, Asking, Dialect, Reply, example
from rankd.dialects.texts import SAYING, kind, refuse_many_fields
from rankd.errors import InternalError, InvalidRequest, RankError, TooLarge
from rankd.types import Ask, Usage

_log = logging.getLogger("rankd")


_MANY: dict[str, Any] = {"minItems": 1, "x-limit": "max_documents"}
_Parts = Annotated[list[Any], Field(json_schema_extra={"items": {"type": "object"}, **_MANY})]
_Queries = Annotated[list[Any], Field(json_schema_extra={"items": SAYING, **_MANY})]


class ManyRequest(BaseModel):
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


class Part(BaseModel):
    index: int = Field(description="Place of the request, from 0.")
    status_code: int = Field(description="That it would have had by itself.")
    body: Any = Field(description="The answer, or the error, that it would have had by itself.")
    retry_after: int | None = Field(
        None, description="Seconds after which to send it again; absent when that is no use."
    )


class ManyResponse(BaseModel):
    results: list[Part] = Field(description="In the order of the requests.")


@dataclass(frozen=True)
class _Order:
    """A part that can be ranked."""

    dialect: Dialect
    request: Asking
    ask: Ask


async def batch_rerank(http: Request) -> Response:
    """Many requests in one, each answered or refused by itself."""
    desk = desk_of(http)
    request = wire.validated(ManyRequest, await counter.fields_in(http))
    desk.accept_model(request.model)
    orders = [_read(http, desk, part, place) for place, part in enumerate(request.parts())]
    _refuse_too_many(orders, desk.ranker.max_documents)
    # As many at a time as the key may have, so that none is refused for the others.
    turns = asyncio.Semaphore(desk.ranker.limits.concurrency or len(orders))

    replies: dict[int, Reply] = {}

    async def answer(place: int, order: _Order | dict[str, Any]) -> dict[str, Any]:
        if not isinstance(order, _Order):
            return order
        async with turns:
            return await _answer(http, desk, order, place, replies)

    async with asyncio.TaskGroup() as group:
        parts = [group.create_task(answer(place, order)) for place, order in enumerate(orders)]
    answered = [part.result() for part in parts]
    return wire.JSON({"results": answered}, headers=_headers(desk, replies))


def _headers(desk: Desk, replies: Mapping[int, Reply]) -> dict[str, str]:
    """What stands on every ranking, of all parts together."""
    warnings = [f"requests[{at}]: {one}" for at in sorted(replies) for one in replies[at].warnings]
    usages = [reply.ranking.usage() for reply in replies.values()]
    left_out = [reply.left_out for reply in replies.values() if reply.left_out is not None]
    return {
        **desk.provenance.header,
        **wire.warning_header(warnings),
        **wire.usage_headers(Usage(*map(sum, zip(Usage(0, 0, 0, 0, 0), *usages, strict=True)))),
        **wire.below_header(sum(left_out) if left_out else None),
    }


def _read(http: Request, desk: Desk, part: Any, place: int) -> _Order | dict[str, Any]:
    """What a part asks for, or why it cannot be answered."""
    dialect = union.speaker(part if isinstance(part, dict) else {})
    try:
        if not isinstance(part, dict):
            raise InvalidRequest(f"a request must be an object, not {kind(part)}")
        refuse_many_fields(part, "the body")
        wire.refuse_long_lists(part, desk.ranker.max_documents)
        return _Order(dialect, *counter.asked(http, desk, dialect, part))
    except RankError as problem:
        return _refused(dialect, problem, place)


def _refuse_too_many(orders: Sequence[_Order | Mapping[str, Any]], most: int) -> None:
    documents = sum(len(order.ask.documents) for order in orders if isinstance(order, _Order))
    if documents > most:
        metrics.REFUSED.labels("request_documents").inc()
        raise TooLarge(
            f"{documents:,} documents in {len(orders):,} requests; the limit of all together is "
            f"{most:,}",
            param="requests",
        )


async def _answer(
    http: Request, desk: Desk, order: _Order, place: int, replies: dict[int, Reply]
) -> dict[str, Any]:
    dialect, request, ask = order.dialect, order.request, order.ask
    try:
        ranking = await counter.ranked(http, request, [ask], dialect=dialect)
        path, profile = RERANK_PATHS[0], counter.profile_of(http, request)
        reply = counter.reply_to(dialect, request, ask, ranking, desk, path, profile)
        body = orjson.Fragment(bytes(counter.rendered(dialect, reply).body))
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
