"""Creates the spans of a request, with OpenTelemetry's semantic conventions for HTTP.

Attributes never contain a query, a document or an error message, which may quote them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.propagate import extract
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rankd.context import BATCH, FAILURE, REQUEST_ID, TIMINGS, TRACE, TraceIds
from rankd.errors import RankError
from rankd.telemetry.timings import Stage, StageTimings

# Without GET: health checks and /metrics would be most of the spans.
_TRACED = frozenset({"POST", "DELETE"})

# Status of the span when the client left before a response began.
_CLIENT_LEFT = 499


class TracingMiddleware:
    """Creates a span for each request, as a child of the span in its `traceparent` header.

    The response carries `traceparent` as a header, and in `Server-Timing`, where scripts in
    browsers can read it.
    """

    def __init__(self, app: ASGIApp, *, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in _TRACED:
            await self._app(scope, receive, send)
            return
        attributes = _request_attributes(scope)  # Before other middleware changes the path.
        status = _CLIENT_LEFT

        async def send_with_ids(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_trace_headers(span)]
            await send(message)

        with self._span(scope, attributes) as span:
            try:
                await self._app(scope, receive, send_with_ids)
            except Exception as problem:
                scope.setdefault(FAILURE, problem)
                raise
            finally:
                self._finish(span, scope, status)

    @contextmanager
    def _span(self, scope: Scope, attributes: Mapping[str, Any]) -> Iterator[Span]:
        # A line of a batch job does not arrive over the network.
        kind = SpanKind.INTERNAL if BATCH in scope else SpanKind.SERVER
        span = self._tracer.start_span(
            str(scope["method"]), _context_of(scope), kind, attributes=attributes
        )
        ids = span.get_span_context()
        trace_ids = (
            TraceIds(f"{ids.trace_id:032x}", f"{ids.span_id:016x}") if ids.is_valid else None
        )
        token = TRACE.set(trace_ids)
        try:
            yield span
        finally:
            TRACE.reset(token)
            span.end()

    def _finish(self, span: Span, scope: Scope, status: int) -> None:
        if not span.is_recording():
            return
        if route := getattr(scope.get("route"), "path", ""):
            span.update_name(f"{scope['method']} {route}")
            span.set_attribute("http.route", route)
        span.set_attribute("http.response.status_code", status)
        span.set_attribute("rankd.request_id", REQUEST_ID.get())
        if BATCH in scope:
            span.set_attribute("rankd.batch", True)
        _set_error(span, scope, status)
        self._add_rankings(span, scope.get(TIMINGS, ()))

    def _add_rankings(self, span: Span, timings: Sequence[StageTimings]) -> None:
        """Add the stages as children of the request's span; several rankings get own spans."""
        if len(timings) == 1:
            span.set_attributes(_ranking_attributes(timings[0]))
            self._add_stages(span, timings[0].stages)
            return
        for ranking in timings:
            stages = ranking.stages
            if not stages:
                continue
            child = self._tracer.start_span(
                "rerank",
                trace.set_span_in_context(span),
                attributes=_ranking_attributes(ranking),
                start_time=_nanoseconds(min(stage.began for stage in stages)),
            )
            self._add_stages(child, stages)
            child.end(_nanoseconds(max(stage.ended for stage in stages)))

    def _add_stages(self, parent: Span, stages: Sequence[Stage]) -> None:
        context = trace.set_span_in_context(parent)
        for stage in list(stages):
            child = self._tracer.start_span(
                stage.name, context, start_time=_nanoseconds(stage.began)
            )
            if stage.failed:
                child.set_status(StatusCode.ERROR)
            child.end(_nanoseconds(stage.ended))


def _context_of(scope: Scope) -> Context:
    """The caller's context, from the headers that OTEL_PROPAGATORS selects; else a new one."""
    return extract(
        {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    )


def _request_attributes(scope: Scope) -> dict[str, Any]:
    # Without the query string, which may contain anything.
    server, client = scope.get("server"), scope.get("client")
    return {
        "http.request.method": scope["method"],
        "url.path": scope["path"],
        "url.scheme": scope["scheme"],
        "network.protocol.version": scope["http_version"],
        **({"server.address": server[0], "server.port": server[1]} if server else {}),
        **({"client.address": client[0]} if client else {}),
        **_user_agent(scope),
    }


def _user_agent(scope: Scope) -> dict[str, str]:
    for name, value in scope["headers"]:
        if name == b"user-agent":
            return {"user_agent.original": value.decode("latin-1")}
    return {}


def _ranking_attributes(timings: StageTimings) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "rankd.dialect": timings.dialect,
        "rankd.preset": timings.preset,
        "rankd.documents": timings.documents,
    }
    if (ranking := timings.ranking) is not None:
        usage = ranking.usage
        attributes |= {
            "rankd.tokens": usage.prompt_tokens,
            "rankd.cached_documents": usage.cached_documents,
            "rankd.truncated_documents": len(ranking.truncated),
        }
    return attributes


def _set_error(span: Span, scope: Scope, status: int) -> None:
    """Record the error. Only a 5xx makes the span an error: a 4xx is the client's."""
    problem = scope.get(FAILURE)
    if problem is None and status < 400:
        return
    kind = problem.code if isinstance(problem, RankError) else type(problem).__qualname__
    span.set_attribute("error.type", str(status) if problem is None else kind)
    if problem is not None:
        span.add_event("exception", {"exception.type": type(problem).__qualname__})
    if status >= 500:
        span.set_status(StatusCode.ERROR)


def _trace_headers(span: Span) -> list[tuple[bytes, bytes]]:
    ids = span.get_span_context()
    if not ids.is_valid:
        return []
    value = b"00-%032x-%016x-%02x" % (ids.trace_id, ids.span_id, ids.trace_flags)
    return [(b"traceparent", value), (b"server-timing", b'traceparent;desc="%b"' % value)]


def _nanoseconds(moment: float) -> int:
    """A `time.perf_counter()` value as nanoseconds since 1970."""
    return time.time_ns() - int((time.perf_counter() - moment) * 1e9)
