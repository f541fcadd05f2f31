"""Handles a rerank request in any dialect: read the body, rank, render the answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastapi import Request, Response

from rankd.config.tables import Alias
from rankd.context import BATCH, CALLER, DIALECT, PARSING, TIMINGS
from rankd.dialects import json_io, ndjson
from rankd.dialects.base import Dialect, Endpoint
from rankd.dialects.deadlines import deadline_of
from rankd.dialects.headers import below_header, usage_headers, warning_header
from rankd.dialects.reply import Reply, above_threshold
from rankd.dialects.request import RequestBody, agreed_text
from rankd.dialects.warnings import (
    not_scored_warning,
    profile_warnings,
    threshold_warnings,
    truncation_warnings,
    unknown_fields,
)
from rankd.errors import InvalidRequest
from rankd.ranking.profiles import Profile
from rankd.ranking.service import ModelService, service_of
from rankd.telemetry import metrics
from rankd.telemetry.timings import TIMELINE, StageTimings, current
from rankd.types import BACKGROUND_PRIORITY, RankRequest, RankResult, ScoredDocument

_log = logging.getLogger("rankd.texts")


def endpoint(dialect_of: Callable[[Mapping[str, Any]], Dialect]) -> Endpoint:
    """An endpoint that reranks, in the dialect that `dialect_of` finds for a body."""

    async def rerank(http: Request) -> Response:
        body = await read_body(http)
        return await answer(http, service_of(http), dialect_of(body), body)

    return rerank


async def read_body(http: Request) -> dict[str, Any]:
    """The body as a JSON object; raises as `json_io.read_object`."""
    body = await http.body()
    http.scope[PARSING] = time.perf_counter()
    return json_io.read_object(body, service_of(http).ranker.max_documents)


async def answer(
    http: Request, service: ModelService, dialect: Dialect, body: dict[str, Any]
) -> Response:
    """Rank what a body asks for, and answer in its dialect."""
    http.scope[DIALECT] = dialect
    if model := http.path_params.get("model"):
        body.setdefault("model", model)
    request, rank_request = read_request(http, service, dialect, body)
    if ndjson.is_wanted(http):
        return await _answer_streaming(http, service, dialect, request, rank_request)
    ranking = await rank(http, request, [rank_request])
    path, profile = http.scope["path"], profile_of(http, request)
    reply = build_reply(dialect, request, rank_request, ranking, service, path, profile)
    return render(dialect, reply)


async def _answer_streaming(
    http: Request,
    service: ModelService,
    dialect: Dialect,
    request: RequestBody,
    rank_request: RankRequest,
) -> Response:
    path, profile = http.scope["path"], profile_of(http, request)

    async def rank_streaming(on_result: Callable[[ScoredDocument], None]) -> bytes:
        def on_any_result(result: ScoredDocument) -> None:
            if above_threshold([result], request, profile):
                on_result(result)

        ranking = await rank(http, request, [rank_request], on_any_result)
        reply = build_reply(dialect, request, rank_request, ranking, service, path, profile)
        return bytes(render(dialect, reply).body)

    # Headers are sent before the first result, so they hold what is known by then.
    warnings = [*unknown_fields(request, dialect.name), *profile_warnings(profile, service)]
    headers = {**service.provenance.header, **profile.header, **warning_header(warnings)}
    return await ndjson.stream(dialect, request, profile, rank_streaming, headers)


def read_request(
    http: Request, service: ModelService, dialect: Dialect, body: Mapping[str, Any]
) -> tuple[RequestBody, RankRequest]:
    """A body as the dialect's model, and as the request to rank."""
    metrics.DIALECTS.labels(dialect.name).inc()
    request = json_io.validate(dialect.Request, body)
    service.accept_model(request.model)
    return request, request.rank_request(deadline_of(http, request.timeout_ms))


async def rank(
    http: Request,
    request: RequestBody,
    rank_requests: Sequence[RankRequest],
    on_result: Callable[[ScoredDocument], None] | None = None,
    dialect: Dialect | None = None,
) -> RankResult:
    """Rank for the request's caller.

    Args:
        on_result: called with each result as soon as it is computed.
        dialect: of the request, if its scope does not hold one.

    Raises:
        InvalidRequest: names the field as the client sent it.
        RankError: as `Ranker.rank`.
    """
    extra: dict[str, Any] = {"caller": http.scope.get(CALLER, ""), "user": request.user or ""}
    if BATCH in http.scope:
        extra |= {"priority": BACKGROUND_PRIORITY, "background": True}
    profile = profile_of(http, request)
    request.min_score()  # Refuses an impossible threshold before anything is computed.
    metrics.INSTRUCTIONS.labels(profile.preset).inc()
    rank_requests = [
        replace(_with_profile(rank_request, request, profile), **extra)
        for rank_request in rank_requests
    ]
    timings = _start_timings(http, rank_requests, profile, dialect)
    if service_of(http).log_texts:
        _log_texts(rank_requests)
    try:
        timings.ranking = await service_of(http).rank(rank_requests, on_result, timings)
        return timings.ranking
    except InvalidRequest as problem:
        raise request.in_sent_names(problem) from None


def _start_timings(
    http: Request, rank_requests: Sequence[RankRequest], profile: Profile, dialect: Dialect | None
) -> StageTimings:
    """Where this task notes the stages of its ranking from now on."""
    dialect = dialect or http.scope.get(DIALECT)
    timings = StageTimings(
        counted=True,
        dialect=dialect.name if dialect else "",
        preset=profile.preset,
        documents=sum(len(rank_request.documents) for rank_request in rank_requests),
    )
    if (began := http.scope.pop(PARSING, None)) is not None:
        timings.add("parse", began, time.perf_counter())
    http.scope.setdefault(TIMINGS, []).append(timings)
    TIMELINE.set(timings)
    return timings


def _log_texts(rank_requests: Sequence[RankRequest]) -> None:
    for rank_request in rank_requests:
        texts = {
            "query": rank_request.query,
            "instruction": rank_request.instruction,
            "documents": list(rank_request.documents),
        }
        _log.info("asked: %s", ascii(texts), extra=texts)


def profile_of(http: Request, request: RequestBody) -> Profile:
    """The instruction, threshold and calibration for a request.

    Chosen by the request's own fields, else its model's name, its key, or the server's default.

    Raises:
        InvalidRequest: the request names a preset that does not exist.
    """
    return service_of(http).profiles.choose(
        text=agreed_text(**request.instructions()),
        preset=request.preset_name(),
        model=request.model,
        caller=http.scope.get(CALLER, ""),
    )


# Fields of any dialect that override what an alias says of long documents: from which size
# on they do not fit, and what is done with those.
_SIZE_FIELDS = ("max_tokens_per_doc", "max_doc_length")
_TRUNCATION_FIELDS = (
    *("truncation", "truncation_side", "truncate", "truncation_direction"),
    *("max_chunks_per_doc", "overlap_tokens"),
)


def _with_profile(rank_request: RankRequest, request: RequestBody, profile: Profile) -> RankRequest:
    """The request with the profile's values for what it does not say itself."""
    rank_request = replace(rank_request, instruction=profile.instruction)
    if (alias := profile.alias) is None:
        return rank_request
    if alias.max_tokens_per_doc and not request.has_field(*_SIZE_FIELDS):
        rank_request = replace(rank_request, max_document_tokens=alias.max_tokens_per_doc)
    if request.has_field(*_TRUNCATION_FIELDS):
        return rank_request
    return with_alias_truncation(alias, rank_request)


def with_alias_truncation(alias: Alias, rank_request: RankRequest) -> RankRequest:
    """The request with an alias's treatment of documents that do not fit, if it has one."""
    if alias.truncation_policy is None:
        return rank_request
    return replace(
        rank_request,
        truncation=alias.truncation_policy,
        side=alias.truncation_side,
        max_chunks=alias.max_chunks_per_doc,
        overlap=alias.overlap_tokens,
    )


def build_reply(
    dialect: Dialect,
    request: RequestBody,
    rank_request: RankRequest,
    ranking: RankResult,
    service: ModelService,
    path: str,
    profile: Profile,
) -> Reply:
    """What the dialect renders the answer from; collects the warnings."""
    [documents] = ranking.groups
    scored = {document.index for document in documents}
    not_scored = [index for index in range(len(rank_request.documents)) if index not in scored]
    warnings = [
        *not_scored_warning(not_scored, len(rank_request.documents)),
        *unknown_fields(request, dialect.name),
        *truncation_warnings(documents),
        *profile_warnings(profile, service),
        *threshold_warnings(documents, request, profile),
    ]
    return Reply(
        request=request,
        path=path,
        model=service.name_for(request.model),
        texts=rank_request.documents,
        ranking=ranking,
        not_scored=not_scored,
        warnings=warnings,
        device=service.ranker.engine.info.device,
        profile=profile,
        provenance=service.provenance.header | profile.header,
    )


def render(dialect: Dialect, reply: Reply) -> Response:
    """The answer in its dialect, with the headers that all dialects have."""
    metrics.BELOW_THRESHOLD.inc(reply.left_out or 0)
    with current().stage("render"):
        headers = {
            **reply.provenance,
            **warning_header(reply.warnings),
            **usage_headers(reply.ranking.usage()),
            **below_header(reply.left_out),
            **dialect.headers(reply),
        }
        return json_io.JsonResponse(dialect.render(reply), headers=headers)
