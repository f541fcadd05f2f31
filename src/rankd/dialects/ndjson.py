"""An answer as lines of JSON: each verdict as soon as it is known, the ordinary answer last.

Whatever goes wrong before the first verdict is an ordinary refusal; afterwards it is the last
line. So a stream whose last line is a verdict was cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import orjson
from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from rankd.dialects import json_io
from rankd.dialects.base import Dialect
from rankd.dialects.reply import document_details
from rankd.dialects.request import RequestBody
from rankd.errors import InternalError, RankError, ShuttingDown
from rankd.ranking.profiles import Profile
from rankd.types import ScoredDocument

KIND = "application/x-ndjson"

# Seconds in which a client takes the last line of a server that ends.
_LAST_WORDS = 1.0

# Ranks, telling of each verdict; returns the body of the ordinary answer.
Rank = Callable[[Callable[[ScoredDocument], None]], Awaitable[bytes]]


def is_wanted(http: Request) -> bool:
    """Whether the client accepts lines; who does gets them, whatever else it accepts."""
    for one in ",".join(http.headers.getlist("accept")).split(","):
        kind, *parameters = (part.strip().lower() for part in one.split(";"))
        if kind == KIND:
            return not any(part.replace(" ", "") in _REFUSED for part in parameters)
    return False


_REFUSED = frozenset({"q=0", "q=0.0", "q=0.00", "q=0.000"})


async def stream(
    dialect: Dialect, request: RequestBody, profile: Profile, rank: Rank, headers: Mapping[str, str]
) -> Response:
    """Begin to rank; returns once there is a first verdict, or the whole answer.

    Raises:
        RankError: as `rank`, before there was any.
    """
    told: asyncio.Queue[ScoredDocument] = asyncio.Queue()
    ranking = asyncio.ensure_future(rank(told.put_nowait))
    try:
        begun = await _next(told, ranking)
        if not begun and told.empty():
            await ranking  # Refused, or none of the verdicts is wanted.
        return _NdjsonResponse(dialect, request, profile, ranking, begun, told, headers)
    except BaseException:
        ranking.cancel()
        raise


async def _next(
    told: asyncio.Queue[ScoredDocument], ranking: asyncio.Future[bytes]
) -> list[ScoredDocument]:
    """Wait for another verdict, or for the end of the ranking; what is there may be more."""
    waiting = asyncio.ensure_future(told.get())
    try:
        await asyncio.wait((ranking, waiting), return_when=asyncio.FIRST_COMPLETED)
        return [waiting.result()] if waiting.done() else []
    finally:
        waiting.cancel()  # What it was about to take stays in the queue.


class _NdjsonResponse(Response):
    """Sends verdicts until the ranking has ended, and then how."""

    media_type = KIND

    def __init__(
        self,
        dialect: Dialect,
        request: RequestBody,
        profile: Profile,
        ranking: asyncio.Future[bytes],
        begun: list[ScoredDocument],
        told: asyncio.Queue[ScoredDocument],
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(headers=headers)
        # A proxy that waits for the whole answer would undo it.
        self.headers["x-accel-buffering"] = "no"
        self.headers["cache-control"] = "no-cache"
        del self.headers["content-length"]
        self._dialect = dialect
        self._logits = request.wants_logits()
        self._profile = profile if request.details() else None
        self._ranking = ranking
        self._begun = begun
        self._told = told
        self._speaks = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        try:
            await send(start)
            self._speaks = True
            await self._say_verdicts(send)
            await self._say_how_it_ended(send)
        except asyncio.CancelledError:
            if self._speaks:
                # The client left and hears nothing, or the server ends and says so.
                await self._say_that_the_server_ends(send)
            raise
        finally:
            self._ranking.cancel()

    async def _say_verdicts(self, send: Send) -> None:
        """All that is there in one piece, until there will be no more."""
        scored_documents = self._begun
        while True:
            while not self._told.empty():
                scored_documents.append(self._told.get_nowait())
            if scored_documents:
                lines = b"".join(map(self._line, scored_documents))
                await send({"type": "http.response.body", "body": lines, "more_body": True})
            elif self._ranking.done():
                return
            scored_documents = await _next(self._told, self._ranking)

    async def _say_how_it_ended(self, send: Send) -> None:
        try:
            await self._say_last(send, self._ranking.result() + b"\n")
        except RankError as problem:
            await self._say_last(send, self._failure(problem))
        except Exception:
            bug = InternalError("an error inside rankd; it has been logged")
            await self._say_last(send, self._failure(bug))
            raise  # For the log.

    async def _say_that_the_server_ends(self, send: Send) -> None:
        problem = ShuttingDown("the server is stopping and could not finish in time")
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS):
                await self._say_last(send, self._failure(problem))

    async def _say_last(self, send: Send, line: bytes) -> None:
        self._speaks = False
        await send({"type": "http.response.body", "body": line, "more_body": False})

    def _line(self, scored_document: ScoredDocument) -> bytes:
        number = scored_document.logit if self._logits else scored_document.score
        line: dict[str, Any] = {
            "index": scored_document.index,
            "relevance_score": json_io.rounded(number),
            "tokens": scored_document.tokens,
            "truncated": scored_document.truncated,
            "cached": scored_document.cached,
        }
        if self._profile is not None:
            line |= document_details(scored_document, self._profile)
        return _json(line)

    def _failure(self, problem: RankError) -> bytes:
        """The dialect's own envelope, and the status that comes too late."""
        wait = {} if problem.retry_after is None else {"retry_after": problem.retry_after}
        return _json({**self._dialect.envelope(problem), "status_code": problem.status, **wait})


def _json(line: dict[str, Any]) -> bytes:
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
