"""Handles a rerank request in any dialect: read the body, rank, render the answer."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple, TypeVar, TypeVarTuple

import orjson
from fastapi import Request, Response

from rankd.context import BATCH, CALLER, DIALECT, PARSING, TIMINGS
from rankd.dialects import json_io, ndjson
from rankd.dialects.answer_size import min_answer_bytes, refuse_large_answer
from rankd.dialects.base import Dialect, Endpoint
from rankd.dialects.deadlines import deadline_of
from rankd.dialects.headers import answer_headers, warning_header
from rankd.dialects.refused_bodies import outline
from rankd.dialects.reply import Reply, above_threshold, best_results, renumbered
from rankd.dialects.request import RequestBody
from rankd.dialects.resolved import RequestContext, ResolvedRequest
from rankd.dialects.warnings import (
    answer_warnings,
    count_unknown_fields,
    field_warnings,
    instruction_warnings,
)
from rankd.errors import InvalidRequest
from rankd.ranking.service import ModelService
from rankd.telemetry import metrics
from rankd.telemetry.timings import StageTimings
from rankd.types import RankResult, ScoredDocument

Args = TypeVarTuple("Args")
Result = TypeVar("Result")

_log = logging.getLogger("rankd.texts")


class Ranked(NamedTuple):
    """What became of a request.

    Attributes:
        result: its scored documents.
        timings: the stages so far; rendering is another one.
    """

    result: RankResult
    timings: StageTimings


def endpoint(dialect_of: Callable[[Mapping[str, Any]], Dialect]) -> Endpoint:
    """An endpoint that reranks, in the dialect that `dialect_of` finds for a body."""

    async def rerank(http: Request) -> Response:
        service: ModelService = http.app.state.service
        try:
            body = await read_body(http, service)
        except InvalidRequest:
            if fields := await body_outline(http):
                http.scope[DIALECT] = dialect_of(fields)
            raise
        return await answer(http, service, dialect_of(body), body)

    return rerank


async def read_body(http: Request, service: ModelService) -> dict[str, Any]:
    """The body as a JSON object, a large one read in a thread; raises as `json_io.read_object`."""
    body = await http.body()
    http.scope[PARSING] = time.perf_counter()
    if len(body) > json_io.MAX_INLINE_BYTES:
        limit = service.ranker.max_documents
        return await json_io.in_thread(len(body), json_io.read_object, body, limit)
    return json_io.read_object(body, service.ranker.max_documents)


async def run_on_body(http: Request, function: Callable[[*Args], Result], *args: *Args) -> Result:
    """Run a function that reads or validates the request's body: in a thread if it is large."""
    if (size := len(await http.body())) > json_io.MAX_INLINE_BYTES:
        return await json_io.in_thread(size, function, *args)
    return function(*args)


async def body_outline(http: Request) -> dict[str, Any]:
    """The top-level fields of a body that `read_body` refused, with empty values."""
    return await run_on_body(http, outline, await http.body())


async def answer(
    http: Request, service: ModelService, dialect: Dialect, body: dict[str, Any]
) -> Response:
    """Rank what a body asks for, and answer in its dialect."""
    http.scope[DIALECT] = dialect
    if model := http.path_params.get("model"):
        body.setdefault("model", model)
    if (size := len(await http.body())) > json_io.MAX_INLINE_BYTES:
        request = await json_io.in_thread(size, read_request, http, service, dialect, body)
    else:
        request = read_request(http, service, dialect, body)
    if _wants_ndjson(http):
        return await _answer_streaming(http, service, dialect, request)
    ranked = await rank(http, service, dialect, request)
    return render(dialect, build_reply(http, service, dialect, request, ranked))


_WEIGHT_0 = frozenset({"q=0", "q=0.0", "q=0.00", "q=0.000"})


def _wants_ndjson(http: Request) -> bool:
    """Whether `Accept` names NDJSON, with whatever weight but 0 and beside whatever else."""
    for item in ",".join(http.headers.getlist("accept")).split(","):
        media_type, *parameters = (part.strip().lower() for part in item.split(";"))
        if media_type == ndjson.MEDIA_TYPE:
            return not any(part.replace(" ", "") in _WEIGHT_0 for part in parameters)
    return False


async def _answer_streaming(
    http: Request, service: ModelService, dialect: Dialect, request: ResolvedRequest
) -> Response:
    async def rank_streaming(on_result: Callable[[ScoredDocument], None]) -> bytes:
        def on_any_result(result: ScoredDocument) -> None:
            if above_threshold([result], request.answer):
                on_result(result)

        ranked = await rank(http, service, dialect, request, on_any_result)
        reply = build_reply(http, service, dialect, request, ranked)
        return bytes(render(dialect, reply).body)

    if len(request.ranks) > 1:
        raise InvalidRequest(
            "the queries differ, so a line could not say whose score it has: send one query, or "
            "no Accept: application/x-ndjson",
            param=request.sent_names.get("query"),
        )
    # Headers are sent before the first result, so they hold what is known by then.
    warnings = [*field_warnings(request.unknown_fields), *instruction_warnings(request)]
    headers = {
        **service.provenance.header,
        **request.profile.header,
        **warning_header(warnings),
    }
    return await ndjson.stream(dialect, request, rank_streaming, headers)


def read_request(
    http: Request, service: ModelService, dialect: Dialect, body: Mapping[str, Any]
) -> ResolvedRequest:
    """A body in a dialect, resolved."""
    metrics.DIALECTS.labels(dialect.name).inc()
    return resolve(http, service, json_io.validate(dialect.Request, body))


def resolve(http: Request, service: ModelService, body: RequestBody) -> ResolvedRequest:
    """A validated body with every decision made; raises as `RequestBody.resolve`.

    Raises:
        UnknownModel: the server is strict about names and does not serve this model.
    """
    if service.strict:
        service.accept_model(body.model)
    deadline = deadline_of(http, body.timeout_ms, service.timeout_ms)
    scope = http.scope
    return body.resolve(
        RequestContext(
            profiles=service.profiles,
            model=service.name,
            caller=scope.get(CALLER, ""),
            deadline=deadline,
            background=BATCH in scope,
            client_prompts=service.client_prompts,
        )
    )


async def rank(
    http: Request,
    service: ModelService,
    dialect: Dialect,
    request: ResolvedRequest,
    on_result: Callable[[ScoredDocument], None] | None = None,
) -> Ranked:
    """Rank for the request's caller.

    Args:
        on_result: called with each result as soon as it is computed.

    Raises:
        InvalidRequest: names the field as the client sent it.
        RankError: as `Ranker.rank`.
    """
    preset = request.profile.preset
    metrics.INSTRUCTIONS.labels(preset).inc()
    documents = sum([len(rank.documents) for rank in request.ranks])
    if request.answer.return_documents and len(await http.body()) > json_io.MAX_INLINE_BYTES:
        refuse_large_answer(min_answer_bytes(request), service.max_response_bytes)
    timings = StageTimings(counted=True, dialect=dialect.name, preset=preset, documents=documents)
    if (began := http.scope.pop(PARSING, None)) is not None:
        timings.add("parse", began, time.perf_counter())
    http.scope.setdefault(TIMINGS, []).append(timings)
    if service.log_texts:
        _log_texts(request)
    try:
        if request.bare:
            timings.ranking = await _rank_bare(service, request, on_result, timings)
        else:
            timings.ranking = await service.rank(request.ranks, on_result, timings)
    except InvalidRequest as problem:
        raise request.in_sent_names(problem) from None
    if service.shadows is not None:
        service.shadows.offer(request.bare or request.ranks, timings.ranking, request.profile)
    return Ranked(timings.ranking, timings)


async def _rank_bare(
    service: ModelService,
    request: ResolvedRequest,
    on_result: Callable[[ScoredDocument], None] | None,
    timings: StageTimings,
) -> RankResult:
    """Rank the texts without the prompt that the client brought along."""
    if not request.bare[0].details:
        return await service.rank(request.bare, on_result, timings)
    on_bare = None if on_result is None else lambda one: on_result(request.with_sent_spans(one))
    result = await service.rank(request.bare, on_bare, timings)
    documents = list(map(request.with_sent_spans, result.documents))
    return replace(result, groups=[documents], documents=documents)


def _log_texts(request: ResolvedRequest) -> None:
    for rank in request.ranks:
        texts = {
            "query": rank.query,
            "instruction": rank.instruction,
            "documents": list(rank.documents),
        }
        _log.info("asked: %s", ascii(texts), extra=texts)


def build_reply(
    http: Request,
    service: ModelService,
    dialect: Dialect,
    request: ResolvedRequest,
    ranked: Ranked,
) -> Reply:
    """What the dialect renders the answer from; collects the warnings."""
    result, options = ranked.result, request.answer
    documents, texts, cut = result.groups[0], request.ranks[0].documents, result.truncated
    if len(request.ranks) > 1:
        documents = renumbered(result.documents)
        texts = tuple(chain.from_iterable([rank.documents for rank in request.ranks]))
        cut = [document for document in documents if document.truncated]
    not_scored: list[int] = []
    if len(documents) < len(texts):
        not_scored = sorted({*range(len(texts))} - {document.index for document in documents})
    above = documents if options.threshold is None else above_threshold(documents, options)
    usage = result.usage
    if request.unknown_fields:
        count_unknown_fields(request.unknown_fields, dialect.name)
    return Reply(
        request=request,
        answer=options,
        profile=request.profile,
        model=request.model,
        ranking=result,
        scored=documents,
        timings=ranked.timings,
        usage=usage,
        tokens=usage.prompt_tokens,
        best=best_results(above, texts, options),
        left_out=None if options.threshold is None else len(documents) - len(above),
        not_scored=not_scored,
        warnings=answer_warnings(request, documents, cut, not_scored),
        path=http.scope["path"],
        device=service.ranker.engine.info.device,
        provenance={**service.provenance.header, **request.profile.header},
        id=str(uuid.uuid4()),
    )


def render(dialect: Dialect, reply: Reply) -> Response:
    """The answer in its dialect, with the headers that all dialects have."""
    metrics.BELOW_THRESHOLD.inc(reply.left_out or 0)
    with reply.timings.stage("render"):
        headers = {
            **reply.provenance,
            **answer_headers(reply.warnings, reply.usage, reply.left_out),
        }
        if dialect.adds_headers:
            headers |= dialect.headers(reply)
        content = orjson.dumps(dialect.render(reply))
        return Response(content, headers=headers, media_type=json_io.JsonResponse.media_type)
