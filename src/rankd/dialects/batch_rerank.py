"""`/v1/batch_rerank`: several rerank requests in one, each answered or refused by itself.

The body of each part decides its dialect. Parts are admitted one by one, and share the engine
like separate requests of one caller.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Annotated, Any

import orjson
from fastapi import Request, Response
from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from starlette.types import Receive, Scope, Send

from rankd.context import PARSING
from rankd.dialects import detect, handler, json_io
from rankd.dialects.answer_size import large_answer, min_answer_bytes, refuse_large_answer
from rankd.dialects.base import Dialect
from rankd.dialects.fields import SAYING
from rankd.dialects.headers import answer_headers
from rankd.dialects.json_values import refuse_many_fields, type_name
from rankd.dialects.reply import Reply
from rankd.dialects.request import MODEL_DESCRIPTION, RERANK_PATHS, example
from rankd.dialects.resolved import ResolvedRequest
from rankd.dialects.tutorials import simple
from rankd.dialects.warnings import count_unknown_fields, field_warnings
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
    pairs: _Parts | None = Field(
        None,
        description="Another name of `requests`. If none of them names a model, the answer is "
        "that of /simple/batch_rerank. An array instead of an object is read as `pairs`.",
    )
    queries: _Queries | None = Field(
        None,
        description="Short for requests that have only a query each. Absent if `requests` are "
        "sent.",
    )
    model: str | None = Field(None, description=MODEL_DESCRIPTION)

    def parts(self) -> tuple[str, list[Any]]:
        """The field that holds the requests, and their bodies, not validated.

        Raises:
            InvalidRequest: not one of `requests`, `pairs` and `queries` was sent, or an empty list.
        """
        fields = {"requests": self.requests, "pairs": self.pairs, "queries": self.queries}
        sent = [name for name, value in fields.items() if value is not None]
        if len(sent) != 1:
            found = f"; {' and '.join(sent)} were sent" if sent else ""
            raise InvalidRequest(
                f"send either requests or queries (or pairs, as requests){found}", param="requests"
            )
        [name] = sent
        if not (parts := fields[name]):
            raise InvalidRequest(f"{name} must not be empty", param=name)
        return name, [{"query": part} for part in parts] if name == "queries" else parts

    def shared(self) -> dict[str, Any]:
        """The fields that all requests have unless they say otherwise."""
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
class _Part:
    """A request of the body: resolved, or the reason why it was refused."""

    dialect: Dialect
    request: ResolvedRequest | RankError


@dataclass
class _Batch:
    """All requests of one body.

    Attributes:
        parts: in the order of the body.
        is_tutorial: whether the answer is that of /simple/batch_rerank.
        unknown: shared fields that no dialect has.
        max_bytes: of the answers of all parts together.
        replies: of the parts that were ranked, by index.
        size: bytes of the answers so far.
    """

    parts: list[_Part]
    is_tutorial: bool
    unknown: Sequence[str]
    max_bytes: int
    replies: dict[int, Reply] = field(default_factory=dict)
    size: int = 0

    @property
    def is_full(self) -> bool:
        return self.size > self.max_bytes


async def batch_rerank(http: Request) -> Response:
    """Answer every part; parts that cannot be read or ranked get an error each.

    Raises:
        InvalidRequest: the frame around the parts is wrong.
        TooLarge: all parts together have too many documents, or their answers too many bytes.
    """
    service = service_of(http)
    http.scope[PARSING] = time.perf_counter()
    batch = await handler.run_on_body(http, _read_batch, http, service, await http.body())
    # As many at a time as the key may have in flight, so that none is refused because of others.
    slots = asyncio.Semaphore(service.ranker.limits.concurrency or len(batch.parts))

    async def answer(index: int) -> bytes | RankError:
        async with slots:
            return await _answer(http, service, batch, index)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(answer(index)) for index in range(len(batch.parts))]
    if batch.is_full:
        raise large_answer(batch.size, batch.max_bytes)
    outcomes = [task.result() for task in tasks]
    rows = _tutorial_rows(outcomes) if batch.is_tutorial else _rows(batch.parts, outcomes)
    return _BatchResponse(rows, _headers(service, batch))


def _read_batch(http: Request, service: ModelService, body: bytes) -> _Batch:
    limit = service.ranker.max_documents
    value = json_io.read_object_or_array(body, limit, "pairs")
    frame = json_io.validate(BatchRerankRequest, value)
    service.accept_model(frame.model)
    name, bodies = frame.parts()
    is_tutorial = name == "pairs" and not any(
        _names_model(part) for part in (frame.shared(), *bodies)
    )
    known = frame.shared()
    unknown = sorted(known.keys() - _known_fields())
    for field_name in unknown:
        del known[field_name]
    _refuse_shared_objects(known, len(bodies))
    batch = _Batch([], is_tutorial, unknown, service.max_response_bytes)
    documents = size = 0
    for index, part in enumerate(bodies):
        body_of_part = {**known, **part} if isinstance(part, dict) else part
        read = _read(http, service, body_of_part, f"{name}[{index}]", tutorial=is_tutorial)
        batch.parts.append(read)
        if isinstance(read.request, ResolvedRequest):
            documents += len(read.request.rank.documents)
            _refuse_too_many(documents, len(bodies), limit)
            size += min_answer_bytes(read.request, echoes=is_tutorial)
            refuse_large_answer(size, batch.max_bytes)
    return batch


def _names_model(body: Any) -> bool:
    return isinstance(body, dict) and body.get("model") is not None


@cache
def _known_fields() -> frozenset[str]:
    """The fields of every dialect whose bodies are found by their fields."""
    return frozenset(
        name
        for dialect in (*detect.ORDER, simple)
        for variant in dialect.variants()
        for field_name, info in variant.Request.model_fields.items()
        for name in (field_name, info.alias, *_choices(info.validation_alias))
        if name
    )


def _choices(alias: Any) -> list[str]:
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    return [choice for choice in choices if isinstance(choice, str)]


# Bytes of shared objects times the requests that read them. Texts are stored once, but an object
# is read as YAML for every request.
_MAX_SHARED_BYTES = 64 * 1024 * 1024


def _refuse_shared_objects(shared: Mapping[str, Any], count: int) -> None:
    size = sum(_object_bytes(value) for value in shared.values())
    if size * count > _MAX_SHARED_BYTES:
        metrics.REFUSED.labels("request_bytes").inc()
        raise TooLarge(
            f"{count:,} requests read the same objects of {size:,} bytes, together "
            f"{size * count:,}; the limit is {_MAX_SHARED_BYTES:,}: send texts instead of objects, "
            "or fewer requests",
            param="documents",
        )


def _object_bytes(value: Any) -> int:
    """The size of the objects in a shared field."""
    match value:
        case dict():
            return sum(
                len(item) if isinstance(item, str) else _object_bytes(item)
                for item in value.values()
            )
        case list():
            return sum(len(orjson.dumps(item)) for item in value if isinstance(item, dict | list))
    return 0


def _read(http: Request, service: ModelService, body: Any, place: str, *, tutorial: bool) -> _Part:
    dialect = simple if tutorial else detect.dialect_of(body if isinstance(body, dict) else {})
    try:
        if not isinstance(body, dict):
            raise InvalidRequest(f"a request must be an object, not {type_name(body)}")
        refuse_many_fields(body, "the body")
        json_io.refuse_long_lists(body, service.ranker.max_documents)
        return _Part(dialect, handler.read_request(http, service, dialect, body))
    except RankError as problem:
        if tutorial:  # Refused together, so the error says which one it is.
            raise type(problem)(f"{place}: {problem.message}", param=place) from None
        return _Part(dialect, problem)


def _refuse_too_many(documents: int, requests: int, limit: int) -> None:
    if documents > limit:
        metrics.REFUSED.labels("request_documents").inc()
        raise TooLarge(
            f"{documents:,} documents or more in {requests:,} requests; the limit of all together "
            f"is {limit:,}",
            param="requests",
        )


async def _answer(
    http: Request, service: ModelService, batch: _Batch, index: int
) -> bytes | RankError:
    """The part's answer or error; adds its reply to the batch."""
    dialect, request = batch.parts[index].dialect, batch.parts[index].request
    if isinstance(request, RankError) or batch.is_full:
        return request if isinstance(request, RankError) else b""
    try:
        ranked = await handler.rank(http, service, dialect, request)
        reply = replace(
            handler.build_reply(http, service, dialect, request, ranked), path=RERANK_PATHS[0]
        )
        body = bytes(handler.render(dialect, reply).body)
        batch.size += len(body)
        batch.replies[index] = reply
        return b"" if batch.is_full else body
    except RankError as problem:
        return problem
    except Exception as problem:
        # A bug in one part must not fail the others. Only the type: messages may quote documents.
        _log.error("a part of /batch_rerank failed: %s", type(problem).__name__)
        return InternalError("an error inside rankd; it has been logged")


def _rows(parts: Sequence[_Part], outcomes: Sequence[bytes | RankError]) -> list[bytes]:
    """Each part as the JSON of a `BatchRerankPart`."""
    return [
        b'{"index":%d,"status_code":200,"body":%s}' % (index, outcome)
        if isinstance(outcome, bytes)
        else orjson.dumps(_failed(part.dialect, outcome, index))
        for index, (part, outcome) in enumerate(zip(parts, outcomes, strict=True))
    ]


def _failed(dialect: Dialect, problem: RankError, index: int) -> dict[str, Any]:
    extra = {} if problem.retry_after is None else {"retry_after": problem.retry_after}
    return {
        "index": index,
        "status_code": problem.status,
        "body": dialect.envelope(problem),
        **extra,
    }


def _tutorial_rows(outcomes: Sequence[bytes | RankError]) -> list[bytes]:
    """The answers of all parts; raises the first error."""
    rows = []
    for outcome in outcomes:
        if isinstance(outcome, RankError):
            raise outcome
        rows.append(outcome)
    return rows


def _headers(service: ModelService, batch: _Batch) -> dict[str, str]:
    """The headers of one answer, for all parts together."""
    count_unknown_fields(batch.unknown, simple.name if batch.is_tutorial else detect.FALLBACK.name)
    replies = [batch.replies[index] for index in sorted(batch.replies)]
    warnings = field_warnings(batch.unknown) + [
        f"requests[{index}]: {warning}"
        for index in sorted(batch.replies)
        for warning in batch.replies[index].warnings
    ]
    left_out = [reply.left_out for reply in replies if reply.left_out is not None]
    usages = [reply.usage for reply in replies]
    total = RankUsage(*map(sum, zip(RankUsage(0, 0, 0, 0, 0), *usages, strict=True)))
    return {
        **service.provenance.header,
        **answer_headers(warnings, total, sum(left_out) if left_out else None),
    }


class _BatchResponse(Response):
    """Sends the rows one by one, so that large answers are not held twice."""

    media_type = json_io.JsonResponse.media_type

    def __init__(self, rows: Sequence[bytes], headers: Mapping[str, str]) -> None:
        super().__init__(headers=headers)
        separated = [piece for row in rows for piece in (b",", row)][1:]
        self._pieces = [b'{"results":[', *separated, b"]}"]
        self.headers["content-length"] = str(sum(map(len, self._pieces)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
