"""A request's id, its line in the log and its place in the metrics."""

from __future__ import annotations

import logging
import re
import time
import traceback
import uuid
from collections.abc import Callable, Collection

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rankd.context import FAILURE, REQUEST_ID, TIMINGS
from rankd.telemetry import metrics
from rankd.telemetry.timings import server_timing

_log = logging.getLogger("rankd.access")

# What a caller may name its request; anything else could forge lines of the log.
_SAFE_ID = re.compile(rb"[\w.:-]{1,128}", re.ASCII)

# Errors behind an error that are still written down.
_LONGEST_CHAIN = 10


class AccessLogMiddleware:
    """Names each request, in `X-Request-Id` of the answer and in the log.

    Args:
        counts_as: the dialect and the route of a request to rank; None of any other.
        enabled: write the lines; ids and metrics are kept in any case.
        render: what a client is told of a bug.
        arrived: where in the scope is noted when the request came.
        timing_origins: whose pages may read how long the stages of a ranking took; * are all.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        counts_as: Callable[[Scope], tuple[str, str] | None],
        enabled: bool,
        render: Callable[[Exception, Scope], Response],
        arrived: str,
        timing_origins: Collection[str] = (),
    ) -> None:
        self._app = app
        self._counts_as = counts_as
        self._enabled = enabled
        self._render = render
        self._arrived = arrived
        self._timing_origins = timing_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        scope[self._arrived] = time.monotonic()
        path = scope["path"]  # As it came; the rooms behind may change it.
        request_id = _request_id(scope)
        REQUEST_ID.set(request_id.decode())
        status = 499  # What remains when nothing was sent: the client left.

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id),
                    *self._timings(scope, time.perf_counter() - began),
                ]
            await send(message)

        try:
            await self._app(scope, receive, note)
        except Exception as problem:
            # Answered here and not by the framework, whose answer would pass by the log.
            _log.error("%s %s failed: %s", scope["method"], _shown(path), _trace(problem))
            scope[FAILURE] = problem
            if status != 499:
                return  # Too late for another answer; the server below closes the connection.
            await self._render(problem, scope)(scope, receive, note)
        finally:
            self._write(scope, path, status, time.perf_counter() - began)

    def _timings(self, scope: Scope, total: float) -> list[tuple[bytes, bytes]]:
        """How long the stages of its rankings took, if it ranked.

        Args:
            total: seconds until now.
        """
        if not (timelines := scope.get(TIMINGS)):
            return []
        headers = [(b"server-timing", server_timing(timelines, total).encode())]
        origin = _origin(scope)
        if "*" in self._timing_origins:
            headers.append((b"timing-allow-origin", b"*"))
        elif origin in self._timing_origins:
            headers.append((b"timing-allow-origin", origin.encode("latin-1")))
        return headers

    def _write(self, scope: Scope, path: str, status: int, seconds: float) -> None:
        route = _route(scope)
        metrics.REQUESTS.labels(route, str(status)).inc()
        metrics.SECONDS.labels(route).observe(seconds)
        if (ranked := self._counts_as(scope)) is not None:
            metrics.RERANKS.labels(*ranked, str(status)).inc()
            metrics.RERANK_SECONDS.labels(str(status)).observe(seconds)
        if self._enabled:
            _log.info(
                "%s %s %d %.1fms",
                scope["method"],
                _shown(path),
                status,
                seconds * 1000,
                extra={
                    "method": scope["method"],
                    "path": _shown(path),
                    "status": status,
                    "duration_ms": round(seconds * 1000, 3),
                },
            )


def _shown(path: str) -> str:
    """A path as one line of plain characters: a decoded one may hold newlines and escapes."""
    return ascii(path)[1:-1]


def _trace(problem: BaseException) -> str:
    """Where it happened and what, but not what it says: that may quote a document."""
    parts: list[str] = []
    seen: BaseException | None = problem
    while seen is not None and len(parts) < _LONGEST_CHAIN:
        parts.append(
            f"{type(seen).__qualname__}\n{''.join(traceback.format_tb(seen.__traceback__))}"
        )
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return "caused by ".join(parts)


def _request_id(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SAFE_ID.fullmatch(value):
            return bytes(value)
    return uuid.uuid4().hex.encode()


def _origin(scope: Scope) -> str:
    """The page that asks, as browsers say it."""
    return next(
        (value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"), ""
    )


def _route(scope: Scope) -> str:
    """The route's pattern, not its path: a path per scanner would never end."""
    return getattr(scope.get("route"), "path", "unmatched")
