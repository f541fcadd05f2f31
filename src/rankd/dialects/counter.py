"""From a request to an answer, whatever the dialect: read, rank, render."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastapi import Request, Response
from starlette.types import Scope

from rankd import metrics
from rankd.desk import BATCH, CALLER, Desk, desk_of
from rankd.dialects import lines, wire
from rankd.dialects.base import Asking, Dialect, Reply, agreed_text, let_through
from rankd.dialects.deadlines import deadline_of
from rankd.errors import InvalidRequest, RankError
from rankd.profiles import Profile
from rankd.tables import CUSTOM, Alias
from rankd.timeline import TIMELINE, TIMELINES, Timeline, current
from rankd.types import LAST_PRIORITY, Ask, Ranking, Verdict

_log = logging.getLogger("rankd.texts")

# Where a request's dialect is noted, for whoever has to render an error later.
SPOKEN = "rankd.dialect"

# Where is noted when its body began to be read, until its first ranking begins.
_PARSING = "rankd.parsing"

# Whose dialect a body is in, that came to a path.
Choice = Callable[[Scope, Mapping[str, Any]], Dialect]


def endpoint(choose: Choice) -> Callable[[Request], Awaitable[Response]]:
    """A route that ranks."""

    async def rank(http: Request) -> Response:
        body = await fields_in(http)
        return await answer(http, desk_of(http), choose(http.scope, body), body)

    return rank


async def fields_in(http: Request) -> dict[str, Any]:
    """The body as a JSON object; raises as `wire.fields_of`."""
    body = await http.body()
    http.scope[_PARSING] = time.perf_counter()
    return wire.fields_of(body, desk_of(http).ranker.max_documents)


async def ranked(
    http: Request,
    request: Asking,
    asks: Sequence[Ask],
    tell: Callable[[Verdict], None] | None = None,
    dialect: Dialect | None = None,
) -> Ranking:
    """Rank for whoever asks; complaints are about the fields that the caller sent.

    Args:
        dialect: that the request is in, where its scope does not say.
    """
    whose: dict[str, Any] = {"caller": http.scope.get(CALLER, ""), "user": request.user or ""}
    if BATCH in http.scope:
        whose |= {"priority": LAST_PRIORITY, "background": True}
    profile = profile_of(http, request)
    request.least()  # What cannot be compared is refused before anything is computed.
    metrics.INSTRUCTIONS.labels(profile.preset).inc()
    asks = [replace(_filled(ask, request, profile), **whose) for ask in asks]
    timeline = _timeline(http, asks, profile, dialect)
    if desk_of(http).log_texts:
        _log_texts(asks)
    try:
        timeline.ranking = await desk_of(http).rank(asks, tell)
        return timeline.ranking
    except InvalidRequest as problem:
        raise request.retold(problem) from None


def _timeline(
    http: Request, asks: Sequence[Ask], profile: Profile, dialect: Dialect | None
) -> Timeline:
    """Where the stages of this task's ranking are noted, from now on."""
    spoken = dialect or http.scope.get(SPOKEN)
    timeline = Timeline(
        counted=True,
        dialect=spoken.name if spoken else "",
        preset=profile.preset,
        documents=sum(len(ask.documents) for ask in asks),
    )
    if (began := http.scope.pop(_PARSING, None)) is not None:
        timeline.add("parse", began, time.perf_counter())
    http.scope.setdefault(TIMELINES, []).append(timeline)
    TIMELINE.set(timeline)
    return timeline


def _log_texts(asks: Sequence[Ask]) -> None:
    for ask in asks:
        texts = {
            "query": ask.query,
            "instruction": ask.instruction,
            "documents": list(ask.documents),
        }
        _log.info("asked: %s", ascii(texts), extra=texts)


def profile_of(http: Request, request: Asking) -> Profile:
    """By what a request is judged: as it says itself, or its model's name, its key, the server.

    Raises:
        InvalidRequest: it names a preset that is not there.
    """
    return desk_of(http).profiles.choose(
        text=agreed_text(**request.instructions()),
        preset=request.named(),
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


def _filled(ask: Ask, request: Asking, profile: Profile) -> Ask:
    """With what its profile says where the request says nothing."""
    ask = replace(ask, instruction=profile.instruction)
    if (alias := profile.alias) is None:
        return ask
    if alias.max_tokens_per_doc and not request.says(*_SIZES):
        ask = replace(ask, max_document_tokens=alias.max_tokens_per_doc)
    return ask if request.says(*_CUTS) else cut_as(alias, ask)


def cut_as(alias: Alias, ask: Ask) -> Ask:
    """With what a name of the model says of documents that do not fit."""
    if alias.how is None:
        return ask
    return replace(
        ask,
        truncation=alias.how,
        side=alias.truncation_side,
        max_chunks=alias.max_chunks_per_doc,
        overlap=alias.overlap_tokens,
    )


async def answer(http: Request, desk: Desk, dialect: Dialect, body: dict[str, Any]) -> Response:
    """Rank what a body asks for, in its own dialect."""
    http.scope[SPOKEN] = dialect
    if named := http.path_params.get("model"):
        body.setdefault("model", named)
    request, ask = asked(http, desk, dialect, body)
    path, profile = http.scope["path"], profile_of(http, request)
    if lines.are_wanted(http):

        async def rank(tell: Callable[[Verdict], None]) -> bytes:
            def tell_if_wanted(verdict: Verdict) -> None:
                if let_through([verdict], request, profile):
                    tell(verdict)

            ranking = await ranked(http, request, [ask], tell_if_wanted)
            reply = reply_to(dialect, request, ask, ranking, desk, path, profile)
            return bytes(rendered(dialect, reply).body)

        known = [*wire.unknown_fields(request, dialect.name), *profile_warnings(profile, desk)]
        made_by = {**desk.provenance.header, **profile.header}
        headers = {**made_by, **wire.warning_header(known)}
        return await lines.streamed(dialect, request, profile, rank, headers)
    ranking = await ranked(http, request, [ask])
    return rendered(dialect, reply_to(dialect, request, ask, ranking, desk, path, profile))


def asked(
    http: Request, desk: Desk, dialect: Dialect, body: Mapping[str, Any]
) -> tuple[Asking, Ask]:
    """What a body asks for, as it was said and as it is ranked."""
    metrics.DIALECTS.labels(dialect.name).inc()
    request = wire.validated(dialect.Request, body)
    desk.accept_model(request.model)
    return request, request.ask(deadline_of(http, request.timeout_ms))


def reply_to(
    dialect: Dialect,
    request: Asking,
    ask: Ask,
    ranking: Ranking,
    desk: Desk,
    path: str,
    profile: Profile,
) -> Reply:
    scored = {verdict.index for verdict in ranking.groups[0]}
    not_scored = [index for index in range(len(ask.documents)) if index not in scored]
    warnings = [
        *wire.unscored(not_scored, len(ask.documents)),
        *wire.unknown_fields(request, dialect.name),
        *wire.truncations(ranking.groups[0]),
        *profile_warnings(profile, desk),
        *threshold_warnings(ranking.groups[0], request, profile),
    ]
    return Reply(
        request=request,
        path=path,
        model=desk.name_for(request.model),
        texts=ask.documents,
        ranking=ranking,
        not_scored=not_scored,
        warnings=warnings,
        device=desk.ranker.engine.info.device,
        profile=profile,
        provenance=desk.provenance.header | profile.header,
    )


def profile_warnings(profile: Profile, desk: Desk) -> list[str]:
    """A preset's name where a text is expected is understood as a text, but hardly meant so."""
    if profile.preset != CUSTOM or profile.instruction not in desk.profiles.presets:
        return []
    return [
        f"the instruction {profile.instruction!r} was read as a text; the preset of that name is "
        f'"preset": {profile.instruction!r}'
    ]


def threshold_warnings(verdicts: Sequence[Verdict], request: Asking, profile: Profile) -> list[str]:
    """What a caller does not expect: a threshold that it did not send, or none where it did."""
    if request.threshold() is not None:
        told = "score_threshold has no effect here: every document has its place in the answer"
        return [] if request.leaves_out() else [told]
    left_out = len(verdicts) - len(let_through(verdicts, request, profile))
    return wire.below(left_out, len(verdicts), profile.threshold or 0)


def rendered(dialect: Dialect, reply: Reply) -> Response:
    metrics.BELOW_THRESHOLD.inc(reply.left_out or 0)
    with current().stage("render"):
        headers = {
            **reply.provenance,
            **wire.warning_header(reply.warnings),
            **wire.usage_headers(reply.ranking.usage()),
            **wire.below_header(reply.left_out),
            **dialect.headers(reply),
        }
        return wire.JSON(dialect.render(reply), headers=headers)


def refusal(problem: RankError, dialect: Dialect) -> Response:
    """An error in a dialect's own envelope."""
    response = wire.JSON(dialect.envelope(problem), problem.status)
    if problem.retry_after is not None:
        response.headers["retry-after"] = str(problem.retry_after)
    if problem.status == 401:
        response.headers["www-authenticate"] = "Bearer"
    return response
