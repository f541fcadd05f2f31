"""From a request to its spans: names and attributes of OpenTelemetry's conventions for HTTP.

What users asked and what was judged is no attribute, nor is an error's sentence, which may
quote it.
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

# Probes, /metrics and whatever else is only read would be most of all spans.
_TRACED = frozenset({"POST", "DELETE"})

_LEFT = 499  # What remains when nothing was sent: the client left.


class TracingMiddleware:
    """Makes a span of each request, as a child of the caller's when it says `traceparent`.

    The answer says `traceparent`, too, in a header of its own and in `Server-Timing`, which is
    where browsers' tools find it.
    """

    def __init__(self, app: ASGIApp, *, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in _TRACED:
            await self._app(scope, receive, send)
            return
        asked = _asked(scope)  # As it came; the rooms behind may change the path.
        status = _LEFT

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_told(span)]
            await send(message)

        with self._span(scope, asked) as span:
            try:
                await self._app(scope, receive, note)
            except Exception as problem:
                scope.setdefault(FAILURE, problem)
                raise
            finally:
                self._note_end(span, scope, status)

    @contextmanager
    def _span(self, scope: Scope, attributes: Mapping[str, Any]) -> Iterator[Span]:
        # A line of a batch job comes over no wire.
        kind = SpanKind.INTERNAL if BATCH in scope else SpanKind.SERVER
        span = self._tracer.start_span(
            str(scope["method"]), _context_of(scope), kind, attributes=attributes
        )
        ids = span.get_span_context()
        named = TraceIds(f"{ids.trace_id:032x}", f"{ids.span_id:016x}") if ids.is_valid else None
        before = TRACE.set(named)
        try:
            yield span
        finally:
            TRACE.reset(before)
            span.end()

    def _note_end(self, span: Span, scope: Scope, status: int) -> None:
        if not span.is_recording():
            return
        if route := getattr(scope.get("route"), "path", ""):
            span.update_name(f"{scope['method']} {route}")
            span.set_attribute("http.route", route)
        span.set_attribute("http.response.status_code", status)
        span.set_attribute("rankd.request_id", REQUEST_ID.get())
        if BATCH in scope:
            span.set_attribute("rankd.batch", True)
        _note_failure(span, scope, status)
        self._note_rankings(span, scope.get(TIMINGS, ()))

    def _note_rankings(self, span: Span, timelines: Sequence[StageTimings]) -> None:
        """The stages are children of the request; of many rankings, of a span for each."""
        if len(timelines) == 1:
            span.set_attributes(_judged(timelines[0]))
            self._note_stages(span, timelines[0].stages)
            return
        for timeline in timelines:
            stages = timeline.stages
            if not stages:
                continue
            part = self._tracer.start_span(
                "rerank",
                trace.set_span_in_context(span),
                attributes=_judged(timeline),
                start_time=_wall(min(stage.began for stage in stages)),
            )
            self._note_stages(part, stages)
            part.end(_wall(max(stage.ended for stage in stages)))

    def _note_stages(self, parent: Span, stages: Sequence[Stage]) -> None:
        context = trace.set_span_in_context(parent)
        for stage in list(stages):
            child = self._tracer.start_span(stage.name, context, start_time=_wall(stage.began))
            if stage.failed:
                child.set_status(StatusCode.ERROR)
            child.end(_wall(stage.ended))


def _context_of(scope: Scope) -> Context:
    """The caller's, in whatever headers OTEL_PROPAGATORS names; a new one where it says none."""
    return extract(
        {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    )


def _asked(scope: Scope) -> dict[str, Any]:
    # Not the query string: whatever stands there is the caller's own.
    server, client = scope.get("server"), scope.get("client")
    return {
        "http.request.method": scope["method"],
        "url.path": scope["path"],
        "url.scheme": scope["scheme"],
        "network.protocol.version": scope["http_version"],
        **({"server.address": server[0], "server.port": server[1]} if server else {}),
        **({"client.address": client[0]} if client else {}),
        **_agent(scope),
    }


def _agent(scope: Scope) -> dict[str, str]:
    for name, value in scope["headers"]:
        if name == b"user-agent":
            return {"user_agent.original": value.decode("latin-1")}
    return {}


def _judged(timeline: StageTimings) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "rankd.dialect": timeline.dialect,
        "rankd.preset": timeline.preset,
        "rankd.documents": timeline.documents,
    }
    if (ranking := timeline.ranking) is not None:
        usage = ranking.usage()
        cut = sum(result.truncated for group in ranking.groups for result in group)
        attributes |= {
            "rankd.tokens": usage.prompt_tokens,
            "rankd.cached_documents": usage.cached_documents,
            "rankd.truncated_documents": cut,
        }
    return attributes


def _note_failure(span: Span, scope: Scope, status: int) -> None:
    """The server's failures are the span's; a caller's mistake is none of the server's."""
    problem = scope.get(FAILURE)
    if problem is None and status < 400:
        return
    kind = problem.code if isinstance(problem, RankError) else type(problem).__qualname__
    span.set_attribute("error.type", str(status) if problem is None else kind)
    if problem is not None:
        span.add_event("exception", {"exception.type": type(problem).__qualname__})
    if status >= 500:
        span.set_status(StatusCode.ERROR)


def _told(span: Span) -> list[tuple[bytes, bytes]]:
    ids = span.get_span_context()
    if not ids.is_valid:
        return []
    said = b"00-%032x-%016x-%02x" % (ids.trace_id, ids.span_id, ids.trace_flags)
    return [(b"traceparent", said), (b"server-timing", b'traceparent;desc="%b"' % said)]


def _wall(moment: float) -> int:
    """A moment of `time.perf_counter()` in nanoseconds since 1970."""
    return time.time_ns() - int((time.perf_counter() - moment) * 1e9)
