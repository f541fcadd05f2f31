"""Streamed answers: each result as a line of JSON when it is computed, then the whole answer.

An error before the first result is an ordinary error response; a later one is the last
line. A stream whose last line is a result was cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import orjson
from fastapi import Response
from starlette.types import Receive, Scope, Send

from rankd.dialects.base import Dialect
from rankd.dialects.reply import document_details
from rankd.dialects.resolved import ResolvedRequest
from rankd.errors import InternalError, RankError, ShuttingDown
from rankd.types import ScoredDocument, shown_numbers

MEDIA_TYPE = "application/x-ndjson"

# Seconds that a client has to take the last line when the server stops.
_LAST_LINE_TIMEOUT = 1.0

# Ranks, calling its argument with each result; returns the body of the ordinary answer.
Rank = Callable[[Callable[[ScoredDocument], None]], Awaitable[bytes]]


async def stream(
    dialect: Dialect, request: ResolvedRequest, rank: Rank, headers: Mapping[str, str]
) -> Response:
    """Start to rank; returns when there is a first result, or the whole answer.

    Raises:
        RankError: as `rank`, before the first result.
    """
    results: asyncio.Queue[ScoredDocument] = asyncio.Queue()
    ranking = asyncio.ensure_future(rank(results.put_nowait))
    try:
        first = await _next(results, ranking)
        if not first and results.empty():
            await ranking  # Raises, or all results are below the threshold.
        return _NdjsonResponse(dialect, request, ranking, first, results, headers)
    except BaseException:
        ranking.cancel()
        raise


async def _next(
    results: asyncio.Queue[ScoredDocument], ranking: asyncio.Future[bytes]
) -> list[ScoredDocument]:
    """Wait for a result or the end of the ranking; the queue may hold more."""
    result = asyncio.ensure_future(results.get())
    try:
        await asyncio.wait((ranking, result), return_when=asyncio.FIRST_COMPLETED)
        return [result.result()] if result.done() else []
    finally:
        result.cancel()  # A result that it did not return yet stays in the queue.


class _NdjsonResponse(Response):
    """Sends results until the ranking has ended, then the answer or the error."""

    media_type = MEDIA_TYPE

    def __init__(
        self,
        dialect: Dialect,
        request: ResolvedRequest,
        ranking: asyncio.Future[bytes],
        first: list[ScoredDocument],
        results: asyncio.Queue[ScoredDocument],
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(headers=headers)
        # Proxies must not wait for the whole answer.
        self.headers["x-accel-buffering"] = "no"
        self.headers["cache-control"] = "no-cache"
        del self.headers["content-length"]
        self._dialect = dialect
        self._logits = request.answer.logits
        self._profile = request.profile if request.answer.details else None
        self._ranking = ranking
        self._first = first
        self._results = results
        # Whether the response has begun and its last line was not sent.
        self._open = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        try:
            await send(start)
            self._open = True
            await self._send_results(send)
            await self._send_outcome(send)
        except asyncio.CancelledError:
            if self._open:
                # Either the server stops, or the client left and will not read this.
                await self._send_shutdown(send)
            raise
        finally:
            self._ranking.cancel()

    async def _send_results(self, send: Send) -> None:
        """Send lines until the ranking ends, in one piece what is in the queue together."""
        results = self._first
        while True:
            while not self._results.empty():
                results.append(self._results.get_nowait())
            if results:
                lines = b"".join(map(self._line, results))
                await send({"type": "http.response.body", "body": lines, "more_body": True})
            elif self._ranking.done():
                return
            results = await _next(self._results, self._ranking)

    async def _send_outcome(self, send: Send) -> None:
        try:
            await self._send_last(send, self._ranking.result() + b"\n")
        except RankError as problem:
            await self._send_last(send, self._failure(problem))
        except Exception:
            bug = InternalError("an error inside rankd; it has been logged")
            await self._send_last(send, self._failure(bug))
            raise  # For the log.

    async def _send_shutdown(self, send: Send) -> None:
        problem = ShuttingDown("the server is stopping and could not finish in time")
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_LINE_TIMEOUT):
                await self._send_last(send, self._failure(problem))

    async def _send_last(self, send: Send, line: bytes) -> None:
        self._open = False
        await send({"type": "http.response.body", "body": line, "more_body": False})

    def _line(self, result: ScoredDocument) -> bytes:
        line: dict[str, Any] = {
            "index": result.index,
            "relevance_score": shown_numbers([result], logits=self._logits)[0],
            "tokens": result.tokens,
            "truncated": result.truncated,
            "cached": result.cached,
        }
        if self._profile is not None:
            line |= document_details(result, self._profile)
        return _json(line)

    def _failure(self, problem: RankError) -> bytes:
        """The error in the dialect's format, with the status that was not sent."""
        extra = {} if problem.retry_after is None else {"retry_after": problem.retry_after}
        return _json({**self._dialect.envelope(problem), "status_code": problem.status, **extra})


def _json(line: dict[str, Any]) -> bytes:
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
