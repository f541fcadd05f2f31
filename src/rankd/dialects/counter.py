"""From a request to an answer, whatever the dialect: read, rank, render."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastapi import Request, Response
from starlette.types import Scope

from rankd import metrics
from rankd.desk import BATCH, CALLER, Desk, desk_of
from rankd.dialects import lines, wire
from rankd.dialects.base import Asking, Dialect, Reply
from rankd.dialects.deadlines import deadline_of
from rankd.errors import InvalidRequest, RankError
from rankd.types import LAST_PRIORITY, Ask, Ranking, Verdict

# Where a request's dialect is noted, for whoever has to render an error later.
SPOKEN = "rankd.dialect"

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
    return wire.fields_of(await http.body(), desk_of(http).ranker.max_documents)


async def ranked(
    http: Request,
    request: Asking,
    asks: Sequence[Ask],
    tell: Callable[[Verdict], None] | None = None,
) -> Ranking:
    """Rank for whoever asks; complaints are about the fields that the caller sent."""
    whose: dict[str, Any] = {"caller": http.scope.get(CALLER, ""), "user": request.user or ""}
    if BATCH in http.scope:
        whose |= {"priority": LAST_PRIORITY, "background": True}
    try:
        return await desk_of(http).rank([replace(ask, **whose) for ask in asks], tell)
    except InvalidRequest as problem:
        raise request.retold(problem) from None


async def answer(http: Request, desk: Desk, dialect: Dialect, body: dict[str, Any]) -> Response:
    """Rank what a body asks for, in its own dialect."""
    http.scope[SPOKEN] = dialect
    if named := http.path_params.get("model"):
        body.setdefault("model", named)
    request, ask = asked(http, desk, dialect, body)
    path = http.scope["path"]
    if lines.are_wanted(http):

        async def rank(tell: Callable[[Verdict], None]) -> bytes:
            ranking = await ranked(http, request, [ask], tell)
            reply = reply_to(dialect, request, ask, ranking, desk, path)
            return bytes(rendered(dialect, reply).body)

        return await lines.streamed(dialect, request, rank)
    ranking = await ranked(http, request, [ask])
    return rendered(dialect, reply_to(dialect, request, ask, ranking, desk, path))


def asked(
    http: Request, desk: Desk, dialect: Dialect, body: Mapping[str, Any]
) -> tuple[Asking, Ask]:
    """What a body asks for, as it was said and as it is ranked."""
    metrics.DIALECTS.labels(dialect.name).inc()
    request = wire.validated(dialect.Request, body)
    desk.accept_model(request.model)
    return request, request.ask(deadline_of(http, request.timeout_ms))


def reply_to(
    dialect: Dialect, request: Asking, ask: Ask, ranking: Ranking, desk: Desk, path: str
) -> Reply:
    scored = {verdict.index for verdict in ranking.groups[0]}
    not_scored = [index for index in range(len(ask.documents)) if index not in scored]
    warnings = [
        *wire.unscored(not_scored, len(ask.documents)),
        *wire.unknown_fields(request, dialect.name),
        *wire.truncations(ranking.groups[0]),
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
    )


def rendered(dialect: Dialect, reply: Reply) -> Response:
    headers = {
        **wire.warning_header(reply.warnings),
        **wire.cached_header(reply.verdicts),
        **dialect.headers(reply),
    }
    return wire.JSON(dialect.render(reply), headers=headers)


def refusal(problem: RankError, dialect: Dialect) -> Response:
    """An error in a dialect's own envelope."""
    response = wire.JSON(dialect.error(problem), problem.status)
    if problem.retry_after is not None:
        response.headers["retry-after"] = str(problem.retry_after)
    if problem.status == 401:
        response.headers["www-authenticate"] = "Bearer"
    return response
