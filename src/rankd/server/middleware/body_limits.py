"""Reads a body whole, within a limit, and drops the work of a client who left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

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

# Of a body that is read in pieces, bytes for which there is as much time as for another's whole.
_PIECE = 1024 * 1024
# Bytes up to which a body is always read: who fills the room with large ones keeps no
# small one out.
_SMALL = 64 * 1024

Render = Callable[[RankError, Scope], Response]


class BodyLimitMiddleware:
    """FastAPI goes on with the request of a client who hung up; this cancels it.

    Args:
        limit: bytes of one body; more is a 413, before it is read when the client
            says how long it is.
        room: bytes of all bodies that are arriving or being answered; one that would take
            more is a 429, unless it is small or the only one. 0: any number.
        seconds: for a body to arrive, however steadily it trickles; then a 408.
        render: puts an error into the envelope that clients expect.
        in_pieces: whether a body is read by its route, as it arrives, which also limits it.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limit: int,
        room: int,
        seconds: float,
        render: Render,
        in_pieces: Callable[[Scope], bool] = lambda scope: False,
    ) -> None:
        self._app = app
        self._limit = limit
        self._room = _BodyBudget(room)
        self._seconds = seconds
        self._render = render
        self._in_pieces = in_pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        if self._in_pieces(scope):
            await self._pass_pieces(scope, receive, send)
            return
        with self._room.share() as share:
            await self._answer(scope, receive, send, share)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, share: _Share) -> None:
        try:
            body = await self._read_in_time(scope, receive, share)
        except ClientGone:
            return
        except (TooManyRequests, ReadTimeout, ShuttingDown, TooLarge, UnsupportedMedia) as problem:
            response = self._render(problem, scope)
            # The rest of the body is still to come, and must not be read as a request.
            response.headers["connection"] = "close"
            await response(scope, receive, send)
            return
        await self._run_while_wanted(scope, body, receive, send)

    async def _read_in_time(self, scope: Scope, receive: Receive, share: _Share) -> bytes:
        try:
            async with asyncio.timeout(self._seconds):
                return await self._read(scope, receive, share)
        except TimeoutError:
            raise ReadTimeout(f"the body took more than {self._seconds:g} s to arrive") from None
        except asyncio.CancelledError:
            raise ShuttingDown("the server is stopping and the body has not arrived") from None

    async def _read(self, scope: Scope, receive: Receive, share: _Share) -> bytes:
        _refuse_compressed(scope)
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit():
                self._refuse_beyond(int(value))
        body = bytearray()  # A list of pieces takes forty times as much of a body that drips.
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone("the client left while sending")
            body += message.get("body", b"")
            self._refuse_beyond(len(body))
            share.grow(len(body))
            if not message.get("more_body", False):
                return bytes(body)

    async def _pass_pieces(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the route read; every megabyte has as long to arrive as another's whole body."""
        loop = asyncio.get_running_loop()
        size, late_at = 0, loop.time() + self._seconds
        is_whole = False

        async def piece() -> Message:
            nonlocal size, late_at, is_whole
            try:
                async with asyncio.timeout_at(None if is_whole else late_at):
                    message = await receive()
            except TimeoutError:
                raise ReadTimeout(
                    f"a megabyte of the body took more than {self._seconds:g} s to arrive"
                ) from None
            before, size = size, size + len(message.get("body", b""))
            if size // _PIECE > before // _PIECE:
                late_at = loop.time() + self._seconds
            is_whole = not message.get("more_body", False)
            return message

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start" and not is_whole:
                # The rest of the body is still to come, and must not be read as a request.
                others = [header for header in message["headers"] if header[0] != b"connection"]
                message["headers"] = [*others, (b"connection", b"close")]
            await send(message)

        try:
            _refuse_compressed(scope)
            await self._app(scope, piece, note)
        except UnsupportedMedia as problem:
            await self._render(problem, scope)(scope, receive, note)
        except asyncio.CancelledError:
            await self._say_that_it_ends(scope, receive, note)

    def _refuse_beyond(self, size: int) -> None:
        if size > self._limit:
            metrics.REFUSED.labels("request_bytes").inc()
            raise TooLarge(f"the body has {size:,} bytes or more; the limit is {self._limit:,}")

    async def _run_while_wanted(
        self, scope: Scope, body: bytes, receive: Receive, send: Send
    ) -> None:
        began = False

        async def note(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        work = asyncio.ensure_future(self._app(scope, _replay(body, receive), note))
        gone = asyncio.ensure_future(_disconnect(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # The server ends and has waited long enough; whoever still listens is told.
            gone.cancel()
            work.cancel()
            if began:
                with suppress(asyncio.CancelledError):  # A stream says so in its last line.
                    await work
            else:
                await self._say_that_it_ends(scope, receive, send)
            return
        gone.cancel()
        if not work.done():
            metrics.ABANDONED_REQUESTS.labels("client").inc()
            work.cancel()
        with suppress(asyncio.CancelledError):  # The client left.
            await work

    async def _say_that_it_ends(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = ShuttingDown("the server is stopping and could not finish in time")
        await self._render(problem, scope)(scope, receive, send)


def _refuse_compressed(scope: Scope) -> None:
    for name, value in scope["headers"]:
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise UnsupportedMedia(
                f"content-encoding {value.decode('latin-1')!r} is not read; send it plain"
            )


class _BodyBudget:
    """Memory for bodies.

    Attributes:
        held: bytes that are taken now.
    """

    def __init__(self, limit: int) -> None:
        self.held = 0
        self._limit = limit

    @contextmanager
    def share(self) -> Iterator[_Share]:
        """One body's part of it, given back at the end."""
        share = _Share(self)
        try:
            yield share
        finally:
            self.held -= share.size

    def refuse_beyond(self, more: int) -> None:
        if self._limit and self.held and self.held + more > self._limit:
            metrics.REFUSED.labels("waiting_bytes").inc()
            raise TooManyRequests(
                f"{self.held:,} bytes of other bodies are being answered; the limit is "
                f"{self._limit:,} together"
            )


class _Share:
    def __init__(self, room: _BodyBudget) -> None:
        self.size = 0
        self._room = room

    def grow(self, size: int) -> None:
        """Raises Overloaded when there is no room; nothing is kept for what has not arrived,
        so that nobody takes it by a promise."""
        self._room.held -= self.size
        self.size = 0
        if size > _SMALL:
            self._room.refuse_beyond(size)
        self.size = size
        self._room.held += size


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body once, and then what comes after it."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
