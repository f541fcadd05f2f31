"""Adds limits to uvicorn's HTTP/1.1 protocol, and works around uvicorn#2722.

uvicorn limits neither the size of a request head, nor the time in which a request arrives or an
answer is read, and refuses excess connections without the error format of the API. It closes a
connection while the rest of a refused body arrives, which destroys the answer, and takes a
half-closed connection for a closed one. It also loses the body of requests with an `Upgrade`
header: https://github.com/Kludex/uvicorn/issues/2722.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import httptools
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from rankd.errors import (
    HeadersTooLarge,
    InvalidRequest,
    RankError,
    ReadTimeout,
    ShuttingDown,
    TooManyRequests,
)
from rankd.ranking.service import Drain
from rankd.server.idle_connections import IdleConnections
from rankd.server.middleware.body_limits import ByteBudget
from rankd.server.request_target import check_host
from rankd.server.response_transport import ResponseTransport
from rankd.server.write_clock import WriteClock
from rankd.telemetry import metrics

# Bytes and header lines of a request's head plus trailers; proxies allow less.
MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 200

# Pipelined requests that may wait on one connection. One packet can hold thousands, and
# each takes kilobytes of memory.
MAX_PIPELINED = 32

# Connections beyond the limit that still get a 429; further ones are closed at once.
SPARE = 64

# An answer before the end of its request is followed by a lingering close: further input is
# discarded. Closing at once would destroy the answer before the client reads it (RFC 9112, 9.6).
# It ends with the client's close, after so many seconds without input, so many of these periods,
# or so many bytes.
_LINGER_SECONDS, _LINGER_PERIODS, _LINGER_BYTES = 2.0, 15, 1024**3

# Seconds at shutdown for the rest of a body to arrive, and for a client to read on.
_BODY_GRACE_SECONDS = 2.0
_READ_GRACE_SECONDS = 5.0

# Seconds between two tests whether a client that closed its side still reads.
_PROBE_SECONDS = 0.5

# Seconds until the next check of a request that is late because the server is busy with it.
_RECHECK_SECONDS = 1.0


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits on connections, before a request is authenticated.

    Attributes:
        read_seconds: for a whole request to arrive, and for a client to take 64 KiB of an answer.
        connections: maximum number of open connections.
        render: renders an error in the format of the request's API.
        budget: counts answers that clients do not read.
        drain: once it has begun, each connection is closed after its answer, so that clients
            connect to another server.
        idle: connections that are closed when there are too many.
    """

    read_seconds: float
    connections: int
    render: Callable[[RankError, Scope], Response]
    budget: ByteBudget
    drain: Drain
    idle: IdleConnections = field(default_factory=IdleConnections)


class Http11(HttpToolsProtocol):
    """uvicorn's protocol with limits; `Upgrade` headers are ignored.

    Java's HttpClient sends `Upgrade: h2c` with every request. httptools stops after the head
    of such a request and reports it as complete, so uvicorn loses the body (uvicorn#2722). A
    server may ignore the header (RFC 9110, 7.8): a new parser reads the head again without
    it, and then the body.
    """

    def __init__(self, *args: Any, limits: ConnectionLimits, **options: Any) -> None:
        super().__init__(*args, **options)
        self._limits = limits
        self._running: RequestResponseCycle | None = None  # The request that is being answered.
        self._arriving = False  # A request has begun and is not complete.
        self._keep_alive = True  # The arriving request allows another after it.
        self._in_head = True
        self._head_bytes = self._head_lines = 0
        self._parsed_any = False
        self._unfinished_bytes = 0
        self._over_limit = False
        self._timer: asyncio.TimerHandle | None = None
        self._discarding = False  # Further input is ignored.
        self._discarded_bytes = 0
        self._lingering = False  # The last response was sent, the connection is being closed.
        self._half_closed = False  # The client sends nothing more, but may read.
        self._pending_error: RankError | None = None  # To send after earlier responses.

    @classmethod
    def within(cls, limits: ConnectionLimits) -> type[Http11]:
        """A protocol factory with these limits, for uvicorn."""
        return cast("type[Http11]", partial(cls, limits=limits))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Writing resumes when everything was taken: WriteClock relies on it.
        transport.set_write_buffer_limits(high=HIGH_WATER_LIMIT, low=0)
        self._write_clock = WriteClock(transport, self._limits.budget)
        self._response_transport = ResponseTransport(
            transport, self.loop, self._close_after_response
        )
        if self._is_full():
            self._limits.idle.close_oldest()
        self._over_limit = self._is_full()
        if self._is_full(SPARE):
            transport.abort()
        self._limits.idle.add(self, kept=False)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._write_clock.stop()
        self._limits.idle.remove(self)
        if self._running is not None and not self._running.response_complete:
            # uvicorn tells only the newest request, which may still stand in the pipeline.
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def make_room(self) -> None:
        """Close this idle connection; it no longer counts as open."""
        self.connections.discard(self)
        self.transport.abort()

    def _is_full(self, spare: int = 0) -> bool:
        return len(self.connections) > self._limits.connections + spare

    # Reading.

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._discarding:
            self._discarded_bytes += len(data)
            if self._discarded_bytes > _LINGER_BYTES:
                self._close()
            return
        if self._timer is None:
            self._start_timer()
        self._parsed_any = False
        try:
            self._read(memoryview(data))
            if not self._parsed_any:
                # The parser buffers an incomplete line, in time quadratic in its length.
                self._unfinished_bytes += len(data)
                _refuse_long_head(self._unfinished_bytes)
        except (httptools.HttpParserError, HeadersTooLarge) as problem:
            self._refuse(_reason(problem))

    def _read(self, data: memoryview) -> None:
        while True:
            try:
                return self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as stop:
                data = data[stop.args[0] :]
                self._read_head_again()

    def _read_head_again(self) -> None:
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            raise httptools.HttpParserInvalidMethodError("CONNECT is not supported")
        lines = [b"%s %s HTTP/%s" % (method, self.url, version)]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # As uvicorn's own.
        self.parser.feed_data(b"\r\n".join([*lines, b"", b""]))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._arriving = self._in_head = True
        self._head_bytes = self._head_lines = 0
        self._on_parsed()
        self._start_timer()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_lines += 1
        self._count(len(name) + len(value))
        if self._in_head:  # Otherwise a trailer, which is not a header (RFC 9110, 6.5.1).
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        check_host(self.parser.get_http_version(), self.url, self.headers)
        if len(self.pipeline) >= MAX_PIPELINED:
            raise TooManyRequests(
                f"more than {MAX_PIPELINED} requests wait on this connection; "
                "read the responses before sending more"
            )
        self._in_head = False
        self._limits.idle.remove(self)
        is_refused = self._over_limit and self._is_full()
        if is_refused and self.parser.get_method() not in (b"GET", b"HEAD"):
            self.app = self._refuse_connection
        super().on_headers_complete()
        self.cycle.transport = cast(asyncio.Transport, self._response_transport)
        # An answer that begins before the end of the request says `Connection: close`: what
        # arrives afterwards is the rest of a body, and must not be parsed as a request.
        self._keep_alive = self.cycle.keep_alive and not is_refused
        self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._on_parsed()
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._arriving = False
        self._on_parsed()
        self._stop_timer()
        super().on_message_complete()
        if not self.cycle.response_started:
            self.cycle.keep_alive = self._keep_alive and not self._limits.drain.begun

    def _count(self, size: int) -> None:
        self._on_parsed()
        self._head_bytes += size
        _refuse_long_head(self._head_bytes)
        if self._head_lines > MAX_HEADERS:
            raise HeadersTooLarge(f"the request has more than {MAX_HEADERS} headers")

    def _on_parsed(self) -> None:
        self._parsed_any = True
        self._unfinished_bytes = 0

    # Timeouts.

    def _start_timer(self, seconds: float | None = None) -> None:
        self._stop_timer()
        seconds = self._limits.read_seconds if seconds is None else seconds
        self._timer = self.loop.call_later(seconds, self._on_timeout)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timeout(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            # The app is working, or its middleware will refuse the late body.
            self._start_timer(_RECHECK_SECONDS)
        elif self._arriving and self._in_head:
            self._refuse(
                ReadTimeout(
                    f"the request's head took more than {self._limits.read_seconds:g} s to arrive"
                )
            )
        else:
            self._close()

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_write_clock()

    def resume_writing(self) -> None:
        self._write_clock.stop()
        super().resume_writing()

    def _start_write_clock(self) -> None:
        seconds = self._limits.read_seconds
        self._write_clock.start(
            min(seconds, _READ_GRACE_SECONDS) if self._limits.drain.begun else seconds
        )

    # Closing.

    def _close(self) -> None:
        """Close once the client has read what was sent."""
        self._start_write_clock()
        self.transport.close()

    def _close_after_response(self) -> None:
        if self.transport.is_closing():
            return
        if self._arriving or self.pipeline:
            self._linger()
        else:
            self._close()

    def _linger(self) -> None:
        self._discarding = self._lingering = True
        self.pipeline.clear()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._linger_on(_LINGER_PERIODS, self._discarded_bytes)

    def _linger_on(self, periods: int, before: int) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(_LINGER_SECONDS, self._check_linger, periods - 1, before)

    def _check_linger(self, periods: int, before: int) -> None:
        if periods and self._discarded_bytes > before:
            self._linger_on(periods, self._discarded_bytes)
        else:
            self._close()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection for responses, which a half-closed client still reads.

        Not with HTTP/1.0 and TLS, where such a client cannot be told from one that left.
        """
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.more_body or self._lingering:
            return False
        if self.scheme == "https" or cycle.scope["http_version"] != "1.1":
            return False
        self._half_closed = True
        self._discarding = True
        self._probe_client()
        return True

    def _probe_client(self) -> None:
        """Abort the connection if the client has closed both sides.

        It then answers an interim response (RFC 9110, 15.2) with a reset.
        """
        if self.transport.is_closing() or self.cycle.response_complete:
            return
        if self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
            return
        if self._running is not None and not self._running.response_started:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._stop_timer()
        self._timer = self.loop.call_later(_PROBE_SECONDS, self._probe_client)

    def on_response_complete(self) -> None:
        self._response_transport.end()
        if self._lingering:
            return
        super().on_response_complete()
        if self.pipeline or self.transport.is_closing():
            return
        if self.cycle.response_complete:
            self._limits.idle.add(self, kept=True)
        if self._pending_error is not None:
            self._refuse(self._pending_error)
        elif self._half_closed and self.cycle.response_complete:
            self._close()

    def end_keep_alive(self) -> None:
        """Close the connection after the answer to the last request that has arrived."""
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        if self._lingering:
            self._linger_on(1, self._discarded_bytes)
            return
        super().shutdown()
        if self.flow.write_paused or self.transport.is_closing():
            self._start_write_clock()
        if self._awaits_body():
            grace = min(_BODY_GRACE_SECONDS, (self.config.timeout_graceful_shutdown or 0) / 2)
            self.loop.call_later(grace, self._refuse_late_body)

    def _refuse_late_body(self) -> None:
        if self._awaits_body() and not self.transport.is_closing():
            self._refuse(ShuttingDown("the server is stopping and the body has not arrived"))

    def _awaits_body(self) -> bool:
        cycle = self.cycle
        return cycle is not None and cycle.more_body and not cycle.response_started

    def _refuse(self, problem: RankError) -> None:
        """Send an error after the responses to earlier requests, then close."""
        self._discarding = True
        self._stop_timer()
        if self._has_unanswered_before():
            self._pending_error = problem
            return
        awaits_body = self._awaits_body()
        if awaits_body:
            self.cycle.disconnected = True  # The app stops waiting for the rest.
            self.cycle.message_event.set()
        scope = self.cycle.scope if awaits_body else {"type": "http", "path": ""}
        metrics.REQUESTS.labels("unmatched", str(problem.status)).inc()
        self._write(self._limits.render(problem, cast(Scope, scope)))
        self._linger()

    def _has_unanswered_before(self) -> bool:
        """Whether a request before the arriving one still waits for its response."""
        if self.cycle is None or self.cycle.response_complete:
            return False
        return bool(self.pipeline) or self._in_head or not self._arriving

    def _write(self, response: Response) -> None:
        headers = [*self.server_state.default_headers, *response.raw_headers]
        lines = [b"%s: %s\r\n" % header for header in headers]
        head = [STATUS_LINE[response.status_code], *lines, b"connection: close\r\n\r\n"]
        self._response_transport.flush()
        self.transport.write(b"".join([*head, response.body]))

    async def _refuse_connection(self, scope: Scope, receive: Receive, send: Send) -> None:
        metrics.REFUSED.labels("connections").inc()
        problem = TooManyRequests(
            f"more than {self._limits.connections:,} connections are open; "
            "open fewer, or try again later"
        )
        await self._limits.render(problem, scope)(scope, receive, send)


def _refuse_long_head(size: int) -> None:
    if size > MAX_HEAD_BYTES:
        raise HeadersTooLarge(f"the request's head has more than {MAX_HEAD_BYTES:,} bytes")


def _reason(problem: Exception) -> RankError:
    """The RankError that a callback raised, which the parser may have wrapped."""
    for error in (problem, problem.__cause__, problem.__context__):
        if isinstance(error, RankError):
            return error
    return InvalidRequest("this is not a valid HTTP request")
