"""HTTP/1.1 by uvicorn and httptools: what it leaves unlimited is limited here.

uvicorn bounds neither the size of a head, nor the time a request takes to arrive, nor
(in a client's words) the number of connections. And some clients would rather speak
something else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import httptools
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from rankd.errors import (
    HeadersTooLarge,
    InvalidRequest,
    RankError,
    ReadTimeout,
    ShuttingDown,
    TooManyRequests,
)
from rankd.telemetry import metrics

# Bytes and lines of a request's head, and of its trailers; every proxy takes less.
MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 200

# Requests that may stand behind the one that is being answered. A packet holds thousands,
# and each would take its kilobytes and its turn.
MAX_PIPELINED = 32

# Connections beyond the limit that are still told why; the next are closed at once.
SPARE = 64

# Seconds in which a client may read a refusal while we throw away what it still sends:
# closing at once would take the answer back from it (RFC 9112, 9.6).
_LINGER = 1.0

# Seconds that half a body has at shutdown: nothing of it was taken.
_GRACE = 2.0

# Seconds until the next look at a client that is late, but not by its own fault.
_LOOK_AGAIN = 1.0


@dataclass(frozen=True)
class ConnectionLimits:
    """What one client may take of the server before it is known.

    Attributes:
        read_seconds: for a whole request to arrive, however steadily it trickles.
        connections: open at once.
        render: puts an error into the envelope of whoever asks.
    """

    read_seconds: float
    connections: int
    render: Callable[[RankError, Scope], Response]


class Http11(HttpToolsProtocol):
    """uvicorn's protocol within limits, and an offer to leave HTTP/1.1 is passed over.

    Java's HttpClient offers HTTP/2 with every request (`Upgrade: h2c`). httptools stops
    behind the head of such a request and calls it complete, so that uvicorn loses its body:
    https://github.com/Kludex/uvicorn/issues/2722. A server may ignore the offer (RFC 9110,
    7.8), so a new parser reads the head once more without it, and then whatever follows.
    """

    def __init__(self, *args: Any, limits: ConnectionLimits, **options: Any) -> None:
        super().__init__(*args, **options)
        self._limits = limits
        self._arriving = False  # A request has begun and not ended.
        self._in_head = True
        self._head_bytes = self._head_lines = 0
        self._progressed = False
        self._unfinished_bytes = 0
        self._crowded = False
        self._clock: asyncio.TimerHandle | None = None
        self._deaf = False
        self._last_words: RankError | None = None

    @classmethod
    def within(cls, limits: ConnectionLimits) -> type[Http11]:
        """What uvicorn makes a protocol of for each connection."""
        return cast("type[Http11]", partial(cls, limits=limits))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._crowded = self._is_full()
        if self._is_full(SPARE):
            transport.abort()
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)

    def _is_full(self, spare: int = 0) -> bool:
        return len(self.connections) > self._limits.connections + spare

    # Bytes.

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._deaf:
            return
        if self._clock is None:
            self._start_clock()
        self._progressed = False
        try:
            self._read(memoryview(data))
            if not self._progressed:
                # The parser shows a line when it is whole, and until then collects it in
                # a time that grows with the square of its length.
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
            raise httptools.HttpParserInvalidMethodError("this is no proxy")
        lines = [b"%s %s HTTP/%s" % (method, self.url, version)]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # As uvicorn's own.
        self.parser.feed_data(b"\r\n".join([*lines, b"", b""]))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._arriving = self._in_head = True
        self._head_bytes = self._head_lines = 0
        self._progress()
        self._start_clock()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_lines += 1
        self._count(len(name) + len(value))
        if self._in_head:  # Else a trailer, which must not pass for a header (RFC 9110, 6.5.1).
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        if len(self.pipeline) >= MAX_PIPELINED:
            raise TooManyRequests(
                f"more than {MAX_PIPELINED} requests wait on one connection; read the answers"
            )
        self._in_head = False
        turned_away = self._crowded and self._is_full()
        if turned_away and self.parser.get_method() not in (b"GET", b"HEAD"):
            self.app = self._turn_away
        super().on_headers_complete()
        self.cycle.keep_alive = self.cycle.keep_alive and not turned_away

    def on_body(self, body: bytes) -> None:
        self._progress()
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._arriving = False
        self._progress()
        self._stop_clock()
        super().on_message_complete()

    def _count(self, size: int) -> None:
        self._progress()
        self._head_bytes += size
        _refuse_long_head(self._head_bytes)
        if self._head_lines > MAX_HEADERS:
            raise HeadersTooLarge(f"the request has more than {MAX_HEADERS} headers")

    def _progress(self) -> None:
        self._progressed = True
        self._unfinished_bytes = 0

    # Time.

    def _start_clock(self, seconds: float | None = None) -> None:
        self._stop_clock()
        seconds = self._limits.read_seconds if seconds is None else seconds
        self._clock = self.loop.call_later(seconds, self._time_is_up)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _time_is_up(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            # An answer is being made, or the door refuses the body, in the envelope it should.
            self._start_clock(_LOOK_AGAIN)
        elif self._arriving and self._in_head:
            self._refuse(ReadTimeout(f"the head took more than {self._limits.read_seconds:g} s"))
        else:
            self._close()

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def _close(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # Closing would wait until the client has read its answer.
        else:
            self.transport.close()

    # The end.

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._start_clock(self.timeout_keep_alive)  # As `_close`: it may never be read.
        elif self._last_words is not None:
            self._refuse(self._last_words)

    def shutdown(self) -> None:
        super().shutdown()
        if self._is_half_sent():
            grace = min(_GRACE, (self.config.timeout_graceful_shutdown or 0) / 2)
            self.loop.call_later(grace, self._end_half_sent)

    def _end_half_sent(self) -> None:
        if self._is_half_sent() and not self.transport.is_closing():
            self._refuse(ShuttingDown("the server is stopping and the body has not arrived"))

    def _is_half_sent(self) -> bool:
        cycle = self.cycle
        return cycle is not None and cycle.more_body and not cycle.response_started

    def _refuse(self, problem: RankError) -> None:
        """Answer behind what was asked before, read nothing more, and close."""
        self._deaf = True
        self._stop_clock()
        if self._owes_earlier():
            self._last_words = problem
            return
        half_sent = self._is_half_sent()
        if half_sent:
            self.cycle.disconnected = True  # The app stops waiting for the rest.
            self.cycle.message_event.set()
        scope = self.cycle.scope if half_sent else {"type": "http", "path": ""}
        metrics.REQUESTS.labels("unmatched", str(problem.status)).inc()
        self._write(self._limits.render(problem, cast(Scope, scope)))
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._clock = self.loop.call_later(_LINGER, self._close)

    def _owes_earlier(self) -> bool:
        """Whether a request before the one that is arriving is still unanswered."""
        if self.cycle is None or self.cycle.response_complete:
            return False
        return bool(self.pipeline) or self._in_head or not self._arriving

    def _write(self, response: Response) -> None:
        headers = [*self.server_state.default_headers, *response.raw_headers]
        lines = [b"%s: %s\r\n" % header for header in headers]
        head = [STATUS_LINE[response.status_code], *lines, b"connection: close\r\n\r\n"]
        self.transport.write(b"".join([*head, response.body]))

    async def _turn_away(self, scope: Scope, receive: Receive, send: Send) -> None:
        metrics.REFUSED.labels("connections").inc()
        problem = TooManyRequests(
            f"more than {self._limits.connections:,} connections are open; keep fewer"
        )
        response = self._limits.render(problem, scope)
        response.headers["connection"] = "close"
        await response(scope, receive, send)


def _refuse_long_head(size: int) -> None:
    if size > MAX_HEAD_BYTES:
        raise HeadersTooLarge(f"the head of the request has more than {MAX_HEAD_BYTES:,} bytes")


def _reason(problem: Exception) -> RankError:
    """Of what the parser says of an error in one of its callbacks, the error itself."""
    for one in (problem, problem.__cause__, problem.__context__):
        if isinstance(one, RankError):
            return one
    return InvalidRequest("this is no HTTP request")
