"""From a request to an answer, whatever the dialect: read, rank, render."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastapi import Request, Response
from starlette.types import Scope

from rankd.config.tables import CUSTOM, Alias
from rankd.context import BATCH, CALLER, DIALECT, PARSING, TIMINGS
from rankd.dialects import json_io, ndjson
from rankd.dialects.base import Dialect
from rankd.dialects.deadlines import deadline_of
from rankd.dialects.reply import Reply, above_threshold
from rankd.dialects.request import RequestBody, agreed_text
from rankd.errors import InvalidRequest, RankError
from rankd.ranking.profiles import Profile
from rankd.ranking.service import ModelService, service_of
from rankd.telemetry import metrics
from rankd.telemetry.timings import TIMELINE, StageTimings, current
from rankd.types import BACKGROUND_PRIORITY, RankRequest, RankResult, ScoredDocument

_log = logging.getLogger("rankd.texts")

# Whose dialect a body is in, that came to a path.
Choice = Callable[[Scope, Mapping[str, Any]], Dialect]


def endpoint(choose: Choice) -> Callable[[Request], Awaitable[Response]]:
    """A route that ranks."""

    async def rank(http: Request) -> Response:
        body = await fields_in(http)
        return await answer(http, service_of(http), choose(http.scope, body), body)

    return rank


async def fields_in(http: Request) -> dict[str, Any]:
    """The body as a JSON object; raises as `json_io.fields_of`."""
    body = await http.body()
    http.scope[PARSING] = time.perf_counter()
    return json_io.read_object(body, service_of(http).ranker.max_documents)


async def rank(
    http: Request,
    request: RequestBody,
    rank_requests: Sequence[RankRequest],
    on_result: Callable[[ScoredDocument], None] | None = None,
    dialect: Dialect | None = None,
) -> RankResult:
    """Rank for whoever asks; complaints are about the fields that the caller sent.

    Args:
        dialect: that the request is in, where its scope does not say.
    """
    whose: dict[str, Any] = {"caller": http.scope.get(CALLER, ""), "user": request.user or ""}
    if BATCH in http.scope:
        whose |= {"priority": BACKGROUND_PRIORITY, "background": True}
    profile = profile_of(http, request)
    request.min_score()  # What cannot be compared is refused before anything is computed.
    metrics.INSTRUCTIONS.labels(profile.preset).inc()
    rank_requests = [
        replace(_with_profile(rank_request, request, profile), **whose)
        for rank_request in rank_requests
    ]
    timeline = _timeline(http, rank_requests, profile, dialect)
    if service_of(http).log_texts:
        _log_texts(rank_requests)
    try:
        timeline.ranking = await service_of(http).rank(rank_requests, on_result, timeline)
        return timeline.ranking
    except InvalidRequest as problem:
        raise request.in_sent_names(problem) from None


def _timeline(
    http: Request, rank_requests: Sequence[RankRequest], profile: Profile, dialect: Dialect | None
) -> StageTimings:
    """Where the stages of this task's ranking are noted, from now on."""
    spoken = dialect or http.scope.get(DIALECT)
    timeline = StageTimings(
        counted=True,
        dialect=spoken.name if spoken else "",
        preset=profile.preset,
        documents=sum(len(rank_request.documents) for rank_request in rank_requests),
    )
    if (began := http.scope.pop(PARSING, None)) is not None:
        timeline.add("parse", began, time.perf_counter())
    http.scope.setdefault(TIMINGS, []).append(timeline)
    TIMELINE.set(timeline)
    return timeline


def _log_texts(rank_requests: Sequence[RankRequest]) -> None:
    for rank_request in rank_requests:
        texts = {
            "query": rank_request.query,
            "instruction": rank_request.instruction,
            "documents": list(rank_request.documents),
        }
        _log.info("asked: %s", ascii(texts), extra=texts)


def profile_of(http: Request, request: RequestBody) -> Profile:
    """By what a request is judged: as it says itself, or its model's name, its key, the server.

    Raises:
        InvalidRequest: it names a preset that is not there.
    """
    return service_of(http).profiles.choose(
        text=agreed_text(**request.instructions()),
        preset=request.preset_name(),
        model=request.model,
        caller=http.scope.get(CALLER, ""),
    )


# What a request says of documents that do not fit, in any dialect: from which size on, and what
# becomes of them.
_SIZES = ("max_tokens_per_doc", "max_doc_length")
_CUTS = (
    *("truncation", "truncation_side", "truncate", "truncation_direction"),
    *("max_chunks_per_doc", "overlap_tokens"),
)


def _with_profile(rank_request: RankRequest, request: RequestBody, profile: Profile) -> RankRequest:
    """With what its profile says where the request says nothing."""
    rank_request = replace(rank_request, instruction=profile.instruction)
    if (alias := profile.alias) is None:
        return rank_request
    if alias.max_tokens_per_doc and not request.has_field(*_SIZES):
        rank_request = replace(rank_request, max_document_tokens=alias.max_tokens_per_doc)
    return rank_request if request.has_field(*_CUTS) else with_alias_truncation(alias, rank_request)


def with_alias_truncation(alias: Alias, rank_request: RankRequest) -> RankRequest:
    """With what a name of the model says of documents that do not fit."""
    if alias.truncation_policy is None:
        return rank_request
    return replace(
        rank_request,
        truncation=alias.truncation_policy,
        side=alias.truncation_side,
        max_chunks=alias.max_chunks_per_doc,
        overlap=alias.overlap_tokens,
    )


async def answer(
    http: Request, service: ModelService, dialect: Dialect, body: dict[str, Any]
) -> Response:
    """Rank what a body asks for, in its own dialect."""
    http.scope[DIALECT] = dialect
    if named := http.path_params.get("model"):
        body.setdefault("model", named)
    request, rank_request = read_request(http, service, dialect, body)
    path, profile = http.scope["path"], profile_of(http, request)
    if ndjson.is_wanted(http):

        async def rank_streaming(tell: Callable[[ScoredDocument], None]) -> bytes:
            def tell_if_wanted(result: ScoredDocument) -> None:
                if above_threshold([result], request, profile):
                    tell(result)

            ranking = await rank(http, request, [rank_request], tell_if_wanted)
            reply = build_reply(dialect, request, rank_request, ranking, service, path, profile)
            return bytes(render(dialect, reply).body)

        known = [
            *json_io.unknown_fields(request, dialect.name),
            *profile_warnings(profile, service),
        ]
        made_by = {**service.provenance.header, **profile.header}
        headers = {**made_by, **json_io.warning_header(known)}
        return await ndjson.stream(dialect, request, profile, rank_streaming, headers)
    ranking = await rank(http, request, [rank_request])
    return render(
        dialect, build_reply(dialect, request, rank_request, ranking, service, path, profile)
    )


def read_request(
    http: Request, service: ModelService, dialect: Dialect, body: Mapping[str, Any]
) -> tuple[RequestBody, RankRequest]:
    """What a body asks for, as it was said and as it is ranked."""
    metrics.DIALECTS.labels(dialect.name).inc()
    request = json_io.validate(dialect.Request, body)
    service.accept_model(request.model)
    return request, request.rank_request(deadline_of(http, request.timeout_ms))


def build_reply(
    dialect: Dialect,
    request: RequestBody,
    rank_request: RankRequest,
    ranking: RankResult,
    service: ModelService,
    path: str,
    profile: Profile,
) -> Reply:
    scored = {result.index for result in ranking.groups[0]}
    not_scored = [index for index in range(len(rank_request.documents)) if index not in scored]
    warnings = [
        *json_io.not_scored_warning(not_scored, len(rank_request.documents)),
        *json_io.unknown_fields(request, dialect.name),
        *json_io.truncation_warnings(ranking.groups[0]),
        *profile_warnings(profile, service),
        *threshold_warnings(ranking.groups[0], request, profile),
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


def profile_warnings(profile: Profile, service: ModelService) -> list[str]:
    """A preset's name where a text is expected is understood as a text, but hardly meant so."""
    if profile.preset != CUSTOM or profile.instruction not in service.profiles.presets:
        return []
    return [
        f"the instruction {profile.instruction!r} was read as a text; the preset of that name is "
        f'"preset": {profile.instruction!r}'
    ]


def threshold_warnings(
    results: Sequence[ScoredDocument], request: RequestBody, profile: Profile
) -> list[str]:
    """What a caller does not expect: a threshold that it did not send, or none where it did."""
    if request.threshold() is not None:
        told = "score_threshold has no effect here: every document has its place in the answer"
        return [] if request.applies_threshold() else [told]
    left_out = len(results) - len(above_threshold(results, request, profile))
    return json_io.below_threshold_warning(left_out, len(results), profile.threshold or 0)


def render(dialect: Dialect, reply: Reply) -> Response:
    metrics.BELOW_THRESHOLD.inc(reply.left_out or 0)
    with current().stage("render"):
        headers = {
            **reply.provenance,
            **json_io.warning_header(reply.warnings),
            **json_io.usage_headers(reply.ranking.usage()),
            **json_io.below_header(reply.left_out),
            **dialect.headers(reply),
        }
        return json_io.JsonResponse(dialect.render(reply), headers=headers)


def error_response(problem: RankError, dialect: Dialect) -> Response:
    """An error in a dialect's own envelope."""
    response = json_io.JsonResponse(dialect.envelope(problem), problem.status)
    if problem.retry_after is not None:
        response.headers["retry-after"] = str(problem.retry_after)
    if problem.status == 401:
        response.headers["www-authenticate"] = "Bearer"
    return response
