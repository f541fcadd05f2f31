"""Limits request bodies in size, time and total memory; cancels work when the client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rankd.errors import (
    ClientGone,
    RankError,
    ReadTimeout,
    ShuttingDown,
    TooLarge,
    TooManyRequests,
    UnsupportedMedia,
)
from rankd.telemetry import metrics

# Bytes of a streamed body that must arrive within the read timeout.
_PART_BYTES = 1024 * 1024

# A body up to this size, in bytes, is exempt from the total limit, so that large bodies
# cannot keep small requests out.
_SMALL_BODY_BYTES = 64 * 1024

Render = Callable[[RankError, Scope], Response]


class BodyLimitMiddleware:
    """Reads each body before the app runs, and cancels the app when the client disconnects.

    FastAPI itself continues with the request of a disconnected client.

    Args:
        max_bytes: of one body; beyond it 413. With a Content-Length, nothing is read first.
        budget: of all bodies in memory; beyond it 429.
        seconds: for a body to arrive; then 408.
        render: renders an error in the format of the request's API.
        streamed_paths: whose routes read the body as it arrives, and limit its size.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_bytes: int,
        budget: ByteBudget,
        seconds: float,
        render: Render,
        streamed_paths: Collection[str] = (),
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._budget = budget
        self._seconds = seconds
        self._render = render
        self._streamed_paths = streamed_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        if scope["path"] in self._streamed_paths:
            await self._run_streamed(scope, receive, send)
            return
        reservation = ByteReservation(self._budget)
        try:
            await self._run_buffered(scope, receive, send, reservation)
        finally:
            reservation.hold(0)

    async def _run_buffered(
        self, scope: Scope, receive: Receive, send: Send, reservation: ByteReservation
    ) -> None:
        try:
            body = await self._read_in_time(scope, receive, reservation)
        except ClientGone:
            return
        except (TooManyRequests, ReadTimeout, ShuttingDown, TooLarge, UnsupportedMedia) as problem:
            await self._render(problem, scope)(scope, receive, send)
            return
        await self._run_until_disconnect(scope, body, receive, send)

    async def _read_in_time(
        self, scope: Scope, receive: Receive, reservation: ByteReservation
    ) -> bytes:
        try:
            async with asyncio.timeout(self._seconds):
                return await self._read(scope, receive, reservation)
        except TimeoutError:
            raise ReadTimeout(f"the body took more than {self._seconds:g} s to arrive") from None
        except asyncio.CancelledError:
            raise ShuttingDown("the server is stopping and the body has not arrived") from None

    async def _read(self, scope: Scope, receive: Receive, reservation: ByteReservation) -> bytes:
        _refuse_compressed(scope)
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > self._max_bytes:
                raise self._too_large(int(value))
        # Not a list of parts: for a body in tiny parts it takes forty times the memory.
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone("the client left while sending")
            body += message.get("body", b"")
            if len(body) > self._max_bytes:
                raise self._too_large(len(body))
            reservation.admit(len(body))
            if not message.get("more_body", False):
                return bytes(body)

    async def _run_streamed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the route read the body; each megabyte must arrive within the read timeout."""
        try:
            _refuse_compressed(scope)
            await self._app(scope, _BodyStream(receive, self._seconds).receive, send)
        except UnsupportedMedia as problem:
            await self._render(problem, scope)(scope, receive, send)
        except asyncio.CancelledError:
            await self._send_shutting_down(scope, receive, send)

    def _too_large(self, size: int) -> TooLarge:
        metrics.REFUSED.labels("request_bytes").inc()
        return TooLarge(f"the body has {size:,} bytes or more; the limit is {self._max_bytes:,}")

    async def _run_until_disconnect(
        self, scope: Scope, body: bytes, receive: Receive, send: Send
    ) -> None:
        started = False

        async def send_noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        work = asyncio.ensure_future(self._app(scope, _replay(body, receive), send_noting))
        disconnect = asyncio.ensure_future(_disconnect(receive))
        try:
            await asyncio.wait((work, disconnect), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # The drain time is over: send an error, or let a stream send its last line.
            disconnect.cancel()
            work.cancel()
            if started:
                with suppress(asyncio.CancelledError):
                    await work
            else:
                await self._send_shutting_down(scope, receive, send)
            return
        disconnect.cancel()
        if not work.done():
            metrics.ABANDONED_REQUESTS.labels("client").inc()
            work.cancel()
        with suppress(asyncio.CancelledError):  # The client left.
            await work

    async def _send_shutting_down(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = ShuttingDown("the server is stopping and could not finish in time")
        await self._render(problem, scope)(scope, receive, send)


def _refuse_compressed(scope: Scope) -> None:
    for name, value in scope["headers"]:
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise UnsupportedMedia(
                f"content-encoding {value.decode('latin-1')!r} is not supported; "
                "send the body uncompressed"
            )


class _BodyStream:
    """The `receive` of a body that its route reads as it arrives.

    Attributes:
        is_complete: the last part was received.
    """

    def __init__(self, receive: Receive, seconds: float) -> None:
        self.is_complete = False
        self._receive = receive
        self._seconds = seconds
        self._size = 0
        self._deadline = asyncio.get_running_loop().time() + seconds

    async def receive(self) -> Message:
        """Raises ReadTimeout when a megabyte does not arrive in time."""
        try:
            async with asyncio.timeout_at(None if self.is_complete else self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise ReadTimeout(
                f"a megabyte of the body took more than {self._seconds:g} s to arrive"
            ) from None
        before, self._size = self._size, self._size + len(message.get("body", b""))
        if self._size // _PART_BYTES > before // _PART_BYTES:
            self._deadline = asyncio.get_running_loop().time() + self._seconds
        self.is_complete = not message.get("more_body", False)
        return message


class ByteBudget:
    """The memory of request bodies, and of answers that clients do not read.

    Args:
        limit: beyond it, a body gets a 429, unless it is small or nothing else is counted.
            0: unlimited.

    Attributes:
        reserved: bytes that are in use now.
    """

    def __init__(self, limit: int) -> None:
        self.reserved = 0
        self._limit = limit

    def check(self, size: int) -> None:
        """Raises TooManyRequests when `size` more bytes exceed the limit."""
        if self._limit and self.reserved and self.reserved + size > self._limit:
            metrics.REFUSED.labels("waiting_bytes").inc()
            raise TooManyRequests(
                f"the bodies of other requests and unread answers hold {self.reserved:,} bytes; "
                f"the limit for all is {self._limit:,}; try again later"
            )


class ByteReservation:
    """The share of one body or answer.

    Attributes:
        size: bytes that it holds.
    """

    def __init__(self, budget: ByteBudget) -> None:
        self.size = 0
        self._budget = budget

    def admit(self, size: int) -> None:
        """Hold the bytes of a body that have arrived, not the announced ones, which cost a
        client nothing. Raises TooManyRequests beyond the limit."""
        if size > _SMALL_BODY_BYTES:
            self.hold(0)
            self._budget.check(size)
        self.hold(size)

    def hold(self, size: int) -> None:
        """Hold exactly `size` bytes, which are in memory already."""
        self._budget.reserved += size - self.size
        self.size = size


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that returns the whole body first, then the messages after it."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
