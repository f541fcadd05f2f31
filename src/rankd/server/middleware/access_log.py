"""Assigns request ids, writes the access log, counts requests and renders internal errors."""

from __future__ import annotations

import logging
import re
import time
import traceback
import uuid
from collections.abc import Callable, Collection

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rankd.context import ARRIVED, FAILURE, PART_OF_PAGE, REQUEST_ID, TIMINGS
from rankd.telemetry import metrics
from rankd.telemetry.timings import server_timing

_log = logging.getLogger("rankd.access")

# A request id that is accepted from a client; other text could forge log lines.
_SAFE_ID = re.compile(rb"[\w.:-]{1,128}", re.ASCII)

# Maximum number of chained exceptions in a logged traceback.
_MAX_CHAIN = 10

# Paths of health checks, which come every few seconds.
_PROBES = frozenset({"/livez", "/readyz", "/health", "/ping", "/metrics"})

# Status in log and metrics when the client left before a response began.
_CLIENT_LEFT = 499


class AccessLogMiddleware:
    """Adds `X-Request-Id` to every response, logs and counts every request.

    Args:
        counts_as: the dialect and the route of a ranking request; None for other requests.
        enabled: write access log lines. Ids and metrics do not depend on it.
        render: the response for an unexpected exception.
        timing_origins: origins that get `Timing-Allow-Origin`; `*` allows all.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        counts_as: Callable[[Scope], tuple[str, str] | None],
        enabled: bool,
        render: Callable[[Exception, Scope], Response],
        timing_origins: Collection[str] = (),
    ) -> None:
        self._app = app
        self._counts_as = counts_as
        self._enabled = enabled
        self._render = render
        self._timing_origins = timing_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        scope[ARRIVED] = time.monotonic()
        path = scope["path"]  # The client's path; other middleware changes the scope's.
        request_id = _request_id(scope)
        REQUEST_ID.set(request_id.decode())
        status = _CLIENT_LEFT

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id),
                    *self._timings(scope, time.perf_counter() - started),
                ]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as problem:
            # Handled here, because the framework's own handler would bypass the access log.
            _log.error("%s %s failed: %s", scope["method"], _escaped(path), _trace(problem))
            scope[FAILURE] = problem
            if status != _CLIENT_LEFT:
                return  # The response has begun: uvicorn closes the connection.
            await self._render(problem, scope)(scope, receive, send_with_id)
        finally:
            self._record(scope, path, status, time.perf_counter() - started)

    def _timings(self, scope: Scope, total: float) -> list[tuple[bytes, bytes]]:
        """`Server-Timing` headers of a ranking request; empty for other requests.

        Args:
            total: seconds since the request arrived.
        """
        if not (timings := scope.get(TIMINGS)):
            return []
        headers = [(b"server-timing", server_timing(timings, total).encode())]
        if "*" in self._timing_origins:
            headers.append((b"timing-allow-origin", b"*"))
        elif self._timing_origins and (origin := _origin(scope)) in self._timing_origins:
            headers.append((b"timing-allow-origin", origin.encode("latin-1")))
        return headers

    def _record(self, scope: Scope, path: str, status: int, seconds: float) -> None:
        route = _route(scope)
        metrics.REQUESTS.labels(route, str(status)).inc()
        metrics.SECONDS.labels(route).observe(seconds)
        if (labels := self._counts_as(scope)) is not None:
            metrics.RERANKS.labels(*labels, str(status)).inc()
            metrics.RERANK_SECONDS.labels(str(status)).observe(seconds)
        if self._enabled:
            is_healthy = status == 200 and path in _PROBES
            escaped = _escaped(path)
            _log.log(
                logging.DEBUG if PART_OF_PAGE in scope or is_healthy else logging.INFO,
                "%s %s %d %.1fms",
                scope["method"],
                escaped,
                status,
                seconds * 1000,
                extra={
                    "method": scope["method"],
                    "path": escaped,
                    "status": status,
                    "duration_ms": round(seconds * 1000, 3),
                },
            )


def _escaped(path: str) -> str:
    """A path as one line of printable ASCII; a decoded path may contain control characters."""
    return ascii(path)[1:-1]


def _trace(problem: BaseException) -> str:
    """A traceback with exception types but without messages, which may quote a document."""
    parts: list[str] = []
    current: BaseException | None = problem
    while current is not None and len(parts) < _MAX_CHAIN:
        frames = "".join(traceback.format_tb(current.__traceback__))
        parts.append(f"{type(current).__qualname__}\n{frames}")
        context = None if current.__suppress_context__ else current.__context__
        current = current.__cause__ or context
    return "caused by ".join(parts)


def _request_id(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SAFE_ID.fullmatch(value):
            return bytes(value)
    return uuid.uuid4().hex.encode()


def _origin(scope: Scope) -> str:
    """The `Origin` header, or ""."""
    return next(
        (value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"), ""
    )


def _route(scope: Scope) -> str:
    """The route's pattern. Paths as labels would create a series for every scanned URL."""
    return getattr(scope.get("route"), "path", "unmatched")
